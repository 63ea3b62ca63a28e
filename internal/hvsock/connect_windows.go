// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"context"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procBind = windows.NewLazySystemDLL("ws2_32.dll").NewProc("bind")

// connect binds the socket to local and connects it to remote, both sockaddrs of
// the same size, until ctx ends. It takes any address family that ConnectEx does.
//
// It holds a thread while it waits: there are few peers, and they answer or are
// given up within seconds.
func connect(ctx context.Context, socket windows.Handle, local, remote unsafe.Pointer, size uintptr) error {
	if r, _, errno := syscall.SyscallN(procBind.Addr(), uintptr(socket), uintptr(local), size); r != 0 {
		return os.NewSyscallError("bind", errno)
	}
	connectEx, err := findConnectEx()
	if err != nil {
		return os.NewSyscallError("wsaioctl", err)
	}
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return os.NewSyscallError("createevent", err)
	}
	defer func() { _ = windows.CloseHandle(event) }()
	pending := &windows.Overlapped{HEvent: event}
	r, _, errno := syscall.SyscallN(connectEx, uintptr(socket), uintptr(remote), size, 0, 0, 0, uintptr(unsafe.Pointer(pending)))
	if r == 0 && errno != windows.ERROR_IO_PENDING {
		return os.NewSyscallError("connectex", errno)
	}
	// Only now, since cancelling finds nothing before. It ends the wait below, and
	// must have returned before the caller closes the socket.
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		_ = windows.CancelIoEx(socket, pending)
	})
	var n, flags uint32
	err = windows.WSAGetOverlappedResult(socket, pending, &n, true, &flags)
	runtime.KeepAlive(pending)
	if !stop() {
		<-cancelled
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // also if it connected at the last moment
	case err != nil:
		return os.NewSyscallError("connectex", err)
	}
	// Without this the socket is connected but shutdown does not know it.
	return os.NewSyscallError("setsockopt", windows.Setsockopt(socket, windows.SOL_SOCKET, windows.SO_UPDATE_CONNECT_CONTEXT, nil, 0))
}

// findConnectEx asks Winsock for the address of ConnectEx, which no DLL exports.
func findConnectEx() (addr uintptr, err error) {
	socket, err := windows.Socket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP)
	if err != nil {
		return 0, err
	}
	defer func() { _ = windows.Closesocket(socket) }()
	id, n := windows.WSAID_CONNECTEX, uint32(0)
	err = windows.WSAIoctl(socket, windows.SIO_GET_EXTENSION_FUNCTION_POINTER,
		(*byte)(unsafe.Pointer(&id)), uint32(unsafe.Sizeof(id)),
		(*byte)(unsafe.Pointer(&addr)), uint32(unsafe.Sizeof(addr)), &n, nil, 0)
	return addr, err
}
