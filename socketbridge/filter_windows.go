// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"fmt"
	"net"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	virtsock "github.com/linuxkit/virtsock/pkg/hvsock"
)

func vmOf(addr net.Addr) (guid.GUID, error) {
	switch addr := addr.(type) {
	case *winio.HvsockAddr:
		if addr != nil {
			return addr.VMID, nil
		}
	case *virtsock.Addr:
		if addr != nil {
			return guid.FromWindowsArray(addr.VMID), nil
		}
	case virtsock.Addr:
		return guid.FromWindowsArray(addr.VMID), nil
	}
	return guid.GUID{}, fmt.Errorf("a %T is no address of a Hyper-V socket", addr)
}
