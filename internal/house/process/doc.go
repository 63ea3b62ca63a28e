// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package process runs programs beside a test, on Linux, and lets none of them
// outlive it.
//
// When the test ends, its processes are told to with SIGTERM, the last one first as
// their lab is torn down, and whoever does not comply fails it. They are in process
// groups of their own, so what one of them leaves behind is killed; and they are
// killed when the test is.
package process
