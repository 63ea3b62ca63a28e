// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
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
	return vmOfEither(addr,
		func(a winio.HvsockAddr) string { return a.VMID.String() },
		func(a virtsock.Addr) string { return guid.FromWindowsArray(a.VMID).String() })
}
