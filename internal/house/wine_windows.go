// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house

import "golang.org/x/sys/windows"

// OnWine reports whether this Windows is wine.
func OnWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
