// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import "golang.org/x/sys/windows"

const passingErrno = windows.WSAEMFILE
