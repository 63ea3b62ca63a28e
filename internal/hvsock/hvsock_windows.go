// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"context"
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

// sockaddr is SOCKADDR_HV.
type sockaddr struct {
	family   uint16
	reserved uint16
	vm       guid.GUID
	service  guid.GUID
}

// VMs returns the VMs that run.
func VMs() ([]guid.GUID, error) {
	return vmsIn(subKeys(registry.LOCAL_MACHINE, computeSystems))
}

func subKeys(root registry.Key, path string) ([]string, error) {
	key, err := registry.OpenKey(root, path, registry.ENUMERATE_SUB_KEYS|registry.WOW64_64KEY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = key.Close() }()
	return key.ReadSubKeyNames(0)
}

// Listen accepts connections from vm to a vsock port of this host, each a [*Conn].
func Listen(vm guid.GUID, port uint32) (net.Listener, error) {
	ln, err := winio.ListenHvsock(&winio.HvsockAddr{VMID: vm, ServiceID: ServiceID(port)})
	if err != nil {
		return nil, err
	}
	return listener{ln}, nil
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
		if conn, err = newDialled(socket, remote); err == nil {
			return conn, nil
		}
	}
	_ = windows.Closesocket(socket)
	return nil, err
}
