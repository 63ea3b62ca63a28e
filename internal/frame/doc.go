// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package frame is the codec that both ends of the data connection share.
//
// On the wire a frame is its length, 16 bits, little-endian, and then the
// Ethernet frame without FCS; the length counts the frame only (PROTOCOL,
// "Data connection"). The rate of a data connection is set by what one frame
// costs, so [Reader] takes many frames with one read and [Queue] sends many
// with one write.
package frame

// MaxLen is the longest frame that the plain format can carry.
const MaxLen = 1<<16 - 1

// prefixLen is the size of the length in front of each frame.
const prefixLen = 2
