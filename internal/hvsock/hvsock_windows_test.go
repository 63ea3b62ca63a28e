// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

// Few Windows machines have Hyper-V, wine has not even the address family, so the
// connecting and the connection are tested over TCP: it is the same system calls.

// tcpSockaddr is SOCKADDR_IN.
type tcpSockaddr struct {
	family uint16
	port   [2]byte
	ip     [4]byte
	_      [8]byte
}

// dialTCP is dial with another address family.
func dialTCP(ctx context.Context, t *testing.T, to *net.TCPAddr) (*Conn, error) {
	t.Helper()
	socket, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED)
	require.NoError(t, err)
	local := tcpSockaddr{family: windows.AF_INET}
	remote := tcpSockaddr{family: windows.AF_INET, port: [2]byte{byte(to.Port >> 8), byte(to.Port)}, ip: [4]byte(to.IP.To4())}
	if err := connect(ctx, socket, unsafe.Pointer(&local), unsafe.Pointer(&remote), unsafe.Sizeof(remote)); err != nil {
		require.NoError(t, windows.Closesocket(socket))
		return nil, err
	}
	conn, err := newDialled(socket, to)
	require.NoError(t, err)
	return conn, nil
}

// TestReset: whether it is read or written to, and whether it waited for the peer's
// RST or came after it, a connection says what every socket says.
func TestReset(t *testing.T) {
	gone := []error{windows.WSAECONNRESET, windows.WSAECONNABORTED}
	for _, waits := range []bool{true, false} {
		conn, peer := pair(t)
		require.NoError(t, peer.SetLinger(0))
		read := make(chan error, 1)
		if waits {
			go func() {
				_, err := conn.Read(make([]byte, 1))
				read <- err
			}()
		}
		require.NoError(t, peer.Close())
		if !waits {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}
		require.ErrorIs(t, <-read, windows.WSAECONNRESET)
		_, err := conn.Write([]byte("x"))
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Contains(t, gone, op.Err)
	}
}

func TestConnectRefused(t *testing.T) {
	ln, addr := listenTCP(t)
	require.NoError(t, ln.Close())
	_, err := dialTCP(t.Context(), t, addr)
	require.ErrorIs(t, err, windows.WSAECONNREFUSED)
}

// TestConnectEndsWithItsContext: FAILURES 28. Before it begins, and while it hangs
// on a listener whose queue is full.
func TestConnectEndsWithItsContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, addr := listenTCP(t)
	_, err := dialTCP(ended, t, addr)
	require.ErrorIs(t, err, context.Canceled)

	full := fullListener(t)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := dialTCP(ctx, t, full)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

// fullListener returns the address of a listener that accepts nobody and whose
// queue is full.
func fullListener(t *testing.T) *net.TCPAddr {
	t.Helper()
	socket, err := windows.Socket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP)
	require.NoError(t, err)
	t.Cleanup(func() { _ = windows.Closesocket(socket) })
	require.NoError(t, windows.Bind(socket, &windows.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, windows.Listen(socket, 1))
	name, err := windows.Getsockname(socket)
	require.NoError(t, err)
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*windows.SockaddrInet4).Port}
	for range 1000 {
		dialer := net.Dialer{Timeout: 200 * time.Millisecond}
		conn, err := dialer.DialContext(t.Context(), "tcp4", addr.String())
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue does not fill")
	return nil
}

// place is where the tests have their compute systems.
const place = `Software\guestnet-test`

func create(t *testing.T, path string) {
	t.Helper()
	key, _, err := registry.CreateKey(registry.CURRENT_USER, path, registry.ALL_ACCESS)
	require.NoError(t, err)
	require.NoError(t, key.Close())
	t.Cleanup(func() { _ = registry.DeleteKey(registry.CURRENT_USER, path) })
}

// TestRegistry: a missing key, an empty one, one with more than VMs in it, and one
// that goes.
func TestRegistry(t *testing.T) {
	vms := func() []guid.GUID {
		t.Helper()
		all, err := vmsIn(subKeys(registry.CURRENT_USER, place))
		require.NoError(t, err)
		return all
	}
	require.Empty(t, vms(), "no key")
	create(t, place)
	require.Empty(t, vms(), "no sub-key")
	vm, err := ParseVM(someVM)
	require.NoError(t, err)
	for range 3 {
		create(t, place+`\Containers`)
		require.Empty(t, vms(), "no GUID")
		create(t, place+`\`+strings.ToUpper(someVM))
		require.Equal(t, []guid.GUID{vm}, vms())
		require.NoError(t, registry.DeleteKey(registry.CURRENT_USER, place+`\`+someVM))
		require.Empty(t, vms(), "it has stopped")
	}
	key, err := registry.OpenKey(registry.CURRENT_USER, place, registry.ENUMERATE_SUB_KEYS)
	require.NoError(t, err)
	require.NoError(t, registry.DeleteKey(registry.CURRENT_USER, place+`\Containers`))
	require.NoError(t, registry.DeleteKey(registry.CURRENT_USER, place))
	_, err = vmsIn(key.ReadSubKeyNames(0))
	require.NoError(t, err, "deleted since it was opened")
	require.NoError(t, key.Close())
	require.Empty(t, vms())
}

// TestVMsComeAndGo while they are listed: those that stay are listed every time.
func TestVMsComeAndGo(t *testing.T) {
	create(t, place)
	create(t, place+`\`+someVM)
	const other = `\2d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11`
	done := make(chan error, 1)
	go func() {
		for range 200 {
			key, _, err := registry.CreateKey(registry.CURRENT_USER, place+other, registry.ALL_ACCESS)
			if err == nil {
				err = errors.Join(key.Close(), registry.DeleteKey(registry.CURRENT_USER, place+other))
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	vm, err := ParseVM(someVM)
	require.NoError(t, err)
	for ended := false; !ended; {
		select {
		case err := <-done:
			require.NoError(t, err)
			ended = true
		default:
		}
		vms, err := vmsIn(subKeys(registry.CURRENT_USER, place))
		require.NoError(t, err)
		require.Contains(t, vms, vm)
		require.LessOrEqual(t, len(vms), 2)
	}
}

// TestAccessDenied is an error, not "no VM".
func TestAccessDenied(t *testing.T) {
	create(t, place)
	allow := func(whom string) {
		key, err := registry.OpenKey(registry.CURRENT_USER, place, windows.WRITE_DAC)
		require.NoError(t, err)
		sd, err := windows.SecurityDescriptorFromString(whom)
		require.NoError(t, err)
		dacl, _, err := sd.DACL()
		require.NoError(t, err)
		require.NoError(t, windows.SetSecurityInfo(windows.Handle(key), windows.SE_REGISTRY_KEY, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil))
		require.NoError(t, key.Close())
	}
	allow("D:") // nobody
	t.Cleanup(func() { allow("D:(A;;KA;;;WD)") })
	_, err := vmsIn(subKeys(registry.CURRENT_USER, place))
	require.ErrorIs(t, err, windows.ERROR_ACCESS_DENIED)
	require.ErrorIs(t, err, os.ErrPermission)
}

// TestNobodyHasThatVM: the dial of a VM that does not run fails, whether this
// machine has Hyper-V or not, and so does listening without Hyper-V.
func TestNobodyHasThatVM(t *testing.T) {
	_, err := VMs()
	require.NoError(t, err)
	vm, err := ParseVM(someVM)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := Dial(ctx, vm, 6669)
	require.Nil(t, conn)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, &winio.HvsockAddr{VMID: vm, ServiceID: ServiceID(6669)}, op.Addr)
	if house.OnWine() {
		require.ErrorIs(t, err, windows.WSAEAFNOSUPPORT)
	}
	ln, err := Listen(vm, 6656)
	if err != nil {
		require.Nil(t, ln)
		require.ErrorIs(t, err, windows.WSAEAFNOSUPPORT)
		return
	}
	require.NoError(t, ln.Close())
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
