// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"fmt"
	"net"

	"github.com/Microsoft/go-winio/pkg/guid"

	"github.com/rancher-sandbox/guestnet/internal/hvsock"
)

// HyperV lists the VMs that run on this Windows host, WSL2's utility VM among
// them, as the Host Compute Service keeps them in the registry. All WSL2 distros
// share one VM, hence one peer.
//
// A port P is the service GUID PPPPPPPP-facb-11e6-bd58-64006a7986d3, P in
// hexadecimal, which Linux guests see as vsock port P.
func HyperV() Source {
	return SourceFunc(func(context.Context) ([]Peer, error) {
		vms, err := hvsock.VMs()
		if err != nil {
			return nil, unsupportedForGood(err)
		}
		peers := make([]Peer, len(vms))
		for i, vm := range vms {
			peers[i] = hyperVPeer(vm)
		}
		return peers, nil
	})
}

// HyperVPeer is a VM whose GUID is known, such as
// "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11", in upper or lower case and with or
// without braces. The well-known GUIDs that stand for several VMs, or for none,
// are refused.
func HyperVPeer(guid string) (Peer, error) {
	vm, err := hvsock.ParseVM(guid)
	if err != nil {
		return nil, permanentError{fmt.Errorf("discovery: %w", err)}
	}
	return hyperVPeer(vm), nil
}

// HyperVGUID returns the GUID of a VM of [HyperV] or [HyperVPeer] as the two packages
// for Hyper-V sockets have it, on every system. ok is false for other peers, also those
// that wrap one.
//
//   - winio is as the GUID is written (RFC 9562), what guid.FromArray of
//     github.com/Microsoft/go-winio/pkg/guid takes.
//   - virtsock has the first three groups in little endian, as Windows has them in
//     memory. It converts to the GUID of github.com/linuxkit/virtsock/pkg/hvsock.
func HyperVGUID(p Peer) (winio, virtsock [16]byte, ok bool) {
	vm, ok := p.(hyperVPeer)
	if !ok {
		return winio, virtsock, false
	}
	return guid.GUID(vm).ToArray(), guid.GUID(vm).ToWindowsArray(), true
}

type hyperVPeer guid.GUID

func (p hyperVPeer) ID() string { return guid.GUID(p).String() }

func (p hyperVPeer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	return hvsock.Dial(ctx, guid.GUID(p), port)
}

func (p hyperVPeer) Listen(port uint32) (net.Listener, error) {
	return hvsock.Listen(guid.GUID(p), port)
}
