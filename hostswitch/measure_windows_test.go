// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// spare is how many handles more are no leak: Go starts threads when it likes, keeps
// them, and each has some.
const spare = 100

// descriptors counts the open handles of this process.
func descriptors() int {
	var count uint32
	ok, _, err := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetProcessHandleCount").
		Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&count)))
	if ok == 0 {
		panic(err)
	}
	return int(count)
}
