// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"fmt"
	"net"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	virtsock "github.com/linuxkit/virtsock/pkg/hvsock"
	"github.com/rancher-sandbox/guestnet/internal/hvsock"
)

func parseVM(id string) (string, error) {
	vm, err := hvsock.ParseVM(id)
	return vm.String(), err
}

func vmOf(addr net.Addr) (string, error) {
	switch addr := addr.(type) {
	case *winio.HvsockAddr:
		if addr != nil {
			return addr.VMID.String(), nil
		}
	case *virtsock.Addr:
		if addr != nil {
			return guid.FromWindowsArray(addr.VMID).String(), nil
		}
	case virtsock.Addr:
		return guid.FromWindowsArray(addr.VMID).String(), nil
	}
	return "", fmt.Errorf("a %T is no address of a Hyper-V socket", addr)
}
