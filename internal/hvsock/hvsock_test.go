// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hvsock

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// go-winio has one goroutine for the completions of the whole process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor"))
}

const someVM = "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"

// TestServiceID: PROTOCOL.md, the template of HV_GUID_VSOCK_TEMPLATE.
func TestServiceID(t *testing.T) {
	for port, want := range map[uint32]string{
		0:          "00000000-facb-11e6-bd58-64006a7986d3",
		1:          "00000001-facb-11e6-bd58-64006a7986d3",
		6656:       "00001a00-facb-11e6-bd58-64006a7986d3",
		6669:       "00001a0d-facb-11e6-bd58-64006a7986d3",
		0x12345678: "12345678-facb-11e6-bd58-64006a7986d3",
		0xffffffff: "ffffffff-facb-11e6-bd58-64006a7986d3",
	} {
		require.Equal(t, want, ServiceID(port).String())
	}
}

// TestParseVMs: the service keeps others than VMs there, too.
func TestParseVMs(t *testing.T) {
	vm, err := guid.FromString(someVM)
	require.NoError(t, err)
	got, err := vmsIn([]string{
		"", "Containers", someVM, strings.ToUpper(someVM), "{" + someVM + "}",
		someVM + "-0", someVM[1:], "{" + someVM, someVM + "}", strings.ReplaceAll(someVM, "-", ""),
		"00000000-0000-0000-0000-000000000000", "zd0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11",
	}, nil)
	require.NoError(t, err)
	require.Equal(t, []guid.GUID{vm, vm, vm}, got)
}

// TestNoVMs: a key that is missing, or has gone, means none; that it cannot be read
// does not.
func TestNoVMs(t *testing.T) {
	for errno, none := range map[syscall.Errno]bool{0: true, 2: true, 3: true, 1018: true, 5: false, 6: false} {
		err := error(errno)
		if errno == 0 {
			err = nil
		}
		got, err := vmsIn(nil, err)
		require.Empty(t, got)
		if none {
			require.NoError(t, err, "%d", errno)
			continue
		}
		require.ErrorIs(t, err, errno)
		require.ErrorContains(t, err, `HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\HostComputeService\VolatileStore\ComputeSystem: `)
	}
}

// FuzzParseVM: what is taken is a GUID, comes out in lower case, and goes in again.
func FuzzParseVM(f *testing.F) {
	f.Add(someVM)
	f.Add("{" + strings.ToUpper(someVM) + "}")
	f.Add("+d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, s string) {
		vm, err := ParseVM(s)
		if err != nil {
			vms, err := vmsIn([]string{s}, nil)
			require.NoError(t, err)
			require.Empty(t, vms)
			return
		}
		require.Regexp(t, "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", vm.String())
		require.Equal(t, strings.ToLower(strings.Trim(s, "{}")), vm.String())
		again, err := ParseVM(vm.String())
		require.NoError(t, err)
		require.Equal(t, vm, again)
	})
}

func TestConnectTimeout(t *testing.T) {
	now := time.Now()
	require.EqualValues(t, 300_000, connectTimeout(t.Context(), now), "no deadline")
	for left, want := range map[time.Duration]uint32{
		5 * time.Second:                    5000,
		5*time.Second + time.Microsecond:   5001,
		time.Microsecond:                   1,
		-time.Second:                       1, // 0 might mean none
		300*time.Second + time.Millisecond: 300_000,
		1000 * time.Hour:                   300_000,
	} {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(left))
		require.Equal(t, want, connectTimeout(ctx, now), left.String())
		cancel()
	}
}

// TestAborted: as go-winio wraps it.
func TestAborted(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{10054: true, 64: true, 10024: false, 995: false} {
		err := &net.OpError{Op: "accept", Net: "hvsock", Err: os.NewSyscallError("acceptex", errno)}
		require.Equal(t, want, aborted(err), "%d", errno)
	}
	require.False(t, aborted(nil))
	require.False(t, aborted(net.ErrClosed))
}

// A script is a listener whose Accept fails as it says, in turn.
type script struct {
	net.Listener
	errs []error
	conn net.Conn // of success
}

func (s *script) Accept() (net.Conn, error) {
	err := s.errs[0]
	s.errs = s.errs[1:]
	if err != nil {
		err = &net.OpError{Op: "accept", Net: "hvsock", Addr: s.Addr(), Err: err} // as go-winio does
	}
	return s.conn, err
}

func (*script) Addr() net.Addr { return &net.UnixAddr{Name: "script", Net: "hvsock"} }

func TestAcceptPassesOverTheAborted(t *testing.T) {
	ln := listener{&script{errs: []error{syscall.Errno(10054), syscall.Errno(64), syscall.Errno(10054), syscall.Errno(10024), nil}, conn: newRaw(nil)}}
	_, err := ln.Accept()
	require.ErrorIs(t, err, syscall.Errno(10024))
	_, err = ln.Accept()
	require.NoError(t, err)
}

// TestAcceptAfterClose is net.ErrClosed, as of every listener; go-winio returns
// os.ErrClosed, which is not, before it waits and while.
func TestAcceptAfterClose(t *testing.T) {
	ln := listener{&script{errs: []error{os.ErrClosed, os.NewSyscallError("acceptex", os.ErrClosed), syscall.Errno(64), os.ErrClosed}}}
	for range 3 {
		_, err := ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, ln.Addr(), op.Addr)
	}
}

func TestElsewhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		return
	}
	_, err := VMs()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = Dial(t.Context(), guid.GUID{}, 1)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = Listen(guid.GUID{}, 1)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
