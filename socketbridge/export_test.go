// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"net"

	"github.com/rancher-sandbox/guestnet/internal/hvsock"
)

// AllowVMBy is AllowVM as it is on Windows, with another way to tell the VM of an address.
func AllowVMBy(vmOf func(net.Addr) (string, error), id ...string) PeerFilter {
	parse := func(id string) (string, error) {
		vm, err := hvsock.ParseVM(id)
		return vm.String(), err
	}
	return allowVM(parse, vmOf, id)
}

// VMOfEither is how AllowVM on Windows tells the VM of an address.
func VMOfEither[Winio, Virtsock any](addr net.Addr, winio func(Winio) string, virtsock func(Virtsock) string) (string, error) {
	return vmOfEither(addr, winio, virtsock)
}

// What ListenPipe decides before and after it asks Windows.
var (
	PipePath     = pipePath
	PipeSecurity = pipeSecurity
	PipeError    = pipeError
)
