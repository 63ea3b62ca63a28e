// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import "golang.org/x/sys/windows"

// errRefused is what connecting to a socket is that nobody listens on.
const errRefused = windows.WSAECONNREFUSED
