// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package frame is the codec that both ends of the data connection share.
//
// On the wire a frame is its length, 16 bits, little-endian, and then the
// Ethernet frame without FCS; the length counts the frame only (PROTOCOL,
// "Data connection"). Both ends may agree on the offload format instead (PROTOCOL,
// "Offload extension"): the length has 32 bits and counts a virtio-net header too,
// which lets one frame stand for many TCP segments; [Message] is how they agree,
// [Reader.Upgrade] and [Queue.Upgrade] are where each direction changes.
//
// The rate of a data connection is set by what one frame costs, so [Reader] takes
// many frames with one read and [Queue] sends many with one write.
package frame

// MaxLen is the longest frame that the plain format can carry.
const MaxLen = 1<<16 - 1

// Sizes of the length in front of each frame.
const (
	prefixLen        = 2
	offloadPrefixLen = 4
)
