// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package guestnet is the map of a house of small networking primitives for the
// link between a desktop host and its Linux guest VM. It holds no code.
package guestnet
