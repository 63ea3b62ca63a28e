// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package hvsock is Hyper-V sockets as the host of Linux guests uses them: the
// VMs that run, a dial that ends with its context, a listener for one VM.
//
// A vsock port of the guest is a service GUID of the host. What can be decided
// without Windows is decided, and tested, on every system; the files for Windows
// hold the system calls. Elsewhere [VMs], [Dial] and [Listen] return an error that
// is [errors.ErrUnsupported].
//
// Addresses are [github.com/Microsoft/go-winio.HvsockAddr], so that a filter for
// go-winio's connections fits.
package hvsock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// ServiceID returns the service GUID of a vsock port: the port, in hexadecimal,
// followed by -facb-11e6-bd58-64006a7986d3 (HV_GUID_VSOCK_TEMPLATE in hvsocket.h).
func ServiceID(port uint32) guid.GUID {
	return guid.GUID{
		Data1: port,
		Data2: 0xfacb,
		Data3: 0x11e6,
		Data4: [8]byte{0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3},
	}
}

// wildcards are the well-known GUIDs that stand for more than one VM, or for none
// (HV_GUID_ZERO and so on in hvsocket.h).
var wildcards = map[string]string{
	"00000000-0000-0000-0000-000000000000": "any VM",
	"ffffffff-ffff-ffff-ffff-ffffffffffff": "all VMs",
	"90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd": "any VM of this host",
	"e0e16197-dd56-4a10-9195-5ee7a155a838": "this host itself",
	"a42e7cda-d03f-480c-9cc2-a4de20abb878": "the host of this VM",
	"36bd0c5c-7276-4223-88ba-7d03b654c568": "the host of this container",
}

// ParseVM parses the GUID of one VM, with or without braces.
func ParseVM(s string) (guid.GUID, error) {
	bare := s
	if inner, ok := strings.CutPrefix(s, "{"); ok && strings.HasSuffix(inner, "}") {
		bare = strings.TrimSuffix(inner, "}")
	}
	vm, err := guid.FromString(bare)
	if err != nil {
		return vm, fmt.Errorf("%q is not the GUID of a VM: write it as in 1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11", s)
	}
	if means, ok := wildcards[vm.String()]; ok {
		return vm, fmt.Errorf("the GUID %s means %s, not one VM: give that of the VM", vm, means)
	}
	return vm, nil
}

// computeSystems is where the Host Compute Service keeps what it runs, one sub-key
// each, under HKEY_LOCAL_MACHINE.
const computeSystems = `SOFTWARE\Microsoft\Windows NT\CurrentVersion\HostComputeService\VolatileStore\ComputeSystem`

// vmsIn returns the VMs among the sub-keys of computeSystems, or what reading them
// has failed with. The others are containers and the like.
func vmsIn(keys []string, err error) ([]guid.GUID, error) {
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf(`list the VMs in the registry at HKLM\%s: %w`, computeSystems, err)
	}
	var vms []guid.GUID
	for _, key := range keys {
		if vm, err := ParseVM(key); err == nil {
			vms = append(vms, vm)
		}
	}
	return vms, nil
}

// missing reports whether a registry key is not there: there never was a VM, or it
// has been deleted since it was opened. Windows says ERROR_FILE_NOT_FOUND,
// ERROR_PATH_NOT_FOUND or ERROR_KEY_DELETED then.
func missing(err error) bool {
	return errors.Is(err, syscall.Errno(2)) || errors.Is(err, syscall.Errno(3)) || errors.Is(err, syscall.Errno(1018))
}

// connectTimeout is the value of HVSOCKET_CONNECT_TIMEOUT, in milliseconds, for a
// dial with this context: its deadline, rounded up, or the longest that hvsocket.h
// allows.
func connectTimeout(ctx context.Context, now time.Time) uint32 {
	const longest = 300_000 // HVSOCKET_CONNECT_TIMEOUT_MAX
	deadline, ok := ctx.Deadline()
	if !ok {
		return longest
	}
	ms := math.Ceil(deadline.Sub(now).Seconds() * 1000)
	return uint32(min(max(ms, 1), longest))
}

// A listener passes over the peers that were gone before they were accepted. That
// it is closed is net.ErrClosed, which go-winio says of connections only. What
// go-winio accepts, a *winio.HvsockConn, is a rawConn.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
		case aborted(err):
			continue
		case err != nil:
			return nil, err
		}
		return newConn(conn.(rawConn)), nil
	}
}

// aborted reports whether accepting failed because a peer was gone before it was
// accepted, which is no reason to stop. Windows says WSAECONNRESET or
// ERROR_NETNAME_DELETED then, which net.OpError does not call temporary.
func aborted(err error) bool {
	return errors.Is(err, wsaeConnReset) || errors.Is(err, syscall.Errno(64))
}
