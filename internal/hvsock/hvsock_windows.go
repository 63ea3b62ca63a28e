// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// From hvsocket.h.
const (
	afHyperV       = 34 // AF_HYPERV
	protocolRaw    = 1  // HV_PROTOCOL_RAW, also the level of the options
	optConnectTime = 1  // HVSOCKET_CONNECT_TIMEOUT
)

// computeSystems is where the Host Compute Service keeps the VMs that run, one
// sub-key each, under HKEY_LOCAL_MACHINE.
const computeSystems = `SOFTWARE\Microsoft\Windows NT\CurrentVersion\HostComputeService\VolatileStore\ComputeSystem`

// sockaddr is SOCKADDR_HV.
type sockaddr struct {
	family   uint16
	reserved uint16
	vm       guid.GUID
	service  guid.GUID
}

// VMs returns the VMs that run. Where there never was one the key is missing,
// which is no error.
func VMs() ([]guid.GUID, error) {
	keys, err := subKeys(registry.LOCAL_MACHINE, computeSystems)
	if err != nil {
		return nil, fmt.Errorf(`list the VMs in the registry at HKLM\%s: %w`, computeSystems, err)
	}
	return parseVMs(keys), nil
}

func subKeys(root registry.Key, path string) ([]string, error) {
	key, err := registry.OpenKey(root, path, registry.ENUMERATE_SUB_KEYS|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = key.Close() }()
	names, err := key.ReadSubKeyNames(0)
	if errors.Is(err, registry.ErrNotExist) { // deleted since
		return nil, nil
	}
	return names, err
}

// Listen accepts connections from vm to a vsock port of this host. They are
// *winio.HvsockConn.
func Listen(vm guid.GUID, port uint32) (net.Listener, error) {
	ln, err := winio.ListenHvsock(&winio.HvsockAddr{VMID: vm, ServiceID: ServiceID(port)})
	if err != nil {
		return nil, err
	}
	return listener{ln}, nil
}

type listener struct{ *winio.HvsockListener }

func (l listener) Accept() (net.Conn, error) {
	for {
		if conn, err := l.HvsockListener.Accept(); !aborted(err) {
			return conn, err
		}
	}
}

// Dial connects to a vsock port of vm. When ctx ends, so does the attempt, and
// nothing is left of it.
func Dial(ctx context.Context, vm guid.GUID, port uint32) (net.Conn, error) {
	remote := &winio.HvsockAddr{VMID: vm, ServiceID: ServiceID(port)}
	conn, err := dial(ctx, remote)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: remote.Network(), Addr: remote, Err: err}
	}
	return conn, nil
}

func dial(ctx context.Context, remote *winio.HvsockAddr) (net.Conn, error) {
	socket, err := windows.WSASocket(afHyperV, windows.SOCK_STREAM, protocolRaw, nil, 0,
		windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	if err != nil {
		return nil, os.NewSyscallError("wsasocket", err)
	}
	// Cancelling the connect is what ends it; this bound is the driver's own, for
	// the case that it does not listen. Where it does not know it, nothing is lost.
	_ = windows.SetsockoptInt(socket, protocolRaw, optConnectTime, int(connectTimeout(ctx, time.Now())))
	// ConnectEx wants a bound socket, and Hyper-V takes the address to connect to.
	addr := sockaddr{family: afHyperV, vm: remote.VMID, service: remote.ServiceID}
	if err = connect(ctx, socket, unsafe.Pointer(&addr), unsafe.Pointer(&addr), unsafe.Sizeof(addr)); err == nil {
		var conn *Conn
		if conn, err = newConn(socket, remote); err == nil {
			return conn, nil
		}
	}
	_ = windows.Closesocket(socket)
	return nil, err
}
