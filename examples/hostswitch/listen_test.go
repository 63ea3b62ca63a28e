// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

const vmID = "1d0d4c0a-7f0a-4b6f-9c63-3a6f0e5b2c11"

// Every address says who may connect; one that does not on its system is refused,
// and the error says what to write there. That is decided alike on all systems.
func TestWhoMayConnect(t *testing.T) {
	const fine = ""
	for _, c := range []struct{ system, address, listen, api string }{
		{"linux", "unix:/tmp/s", fine, fine},
		{"linux", "unix:///tmp/s", fine, fine},
		{"darwin", "unix:/tmp/s", fine, fine},
		{"windows", "npipe:name", fine, fine},
		{"windows", "npipe:////./pipe/name", fine, fine},
		{"linux", "vsock:42:6656", fine, service.LocalForms},
		{"linux", "vsock://3,42:6656", fine, service.LocalForms},
		{"windows", "hyperv:" + vmID + ":6656", fine, service.LocalForms},

		{"windows", "unix:///C:/x/api.sock", "npipe:hostswitch", "npipe:hostswitch"},
		{"windows", "unix:", "npipe:hostswitch", "npipe:hostswitch"},
		{"linux", "npipe:name", "unix:/tmp/hostswitch.sock", "unix:/tmp/hostswitch.sock"},
		{"darwin", "npipe:name", "unix:/tmp/hostswitch.sock", "unix:/tmp/hostswitch.sock"},
		{"linux", "unix:", guestForms, service.LocalForms},
		{"linux", "unix://relative", guestForms, service.LocalForms},
		{"windows", "npipe:", guestForms, service.LocalForms},
		{"linux", "/tmp/s", guestForms, service.LocalForms},

		{"windows", "vsock://:6656", "-discover hyperv", service.LocalForms},
		{"windows", "vsock:42:6656", "-listen hyperv:GUID:PORT", service.LocalForms},
		{"darwin", "vsock:42:6656", "vsock on darwin: unsupported", service.LocalForms},
		{"linux", "hyperv:" + vmID + ":6656", "hyperv on linux: unsupported", service.LocalForms},
		{"linux", "vsock://:6656", "say whom it is for", service.LocalForms},
		{"linux", "vsock:6656", "say whom it is for", service.LocalForms},
		{"linux", "vsock:42:", "and a port", service.LocalForms},
		{"linux", "vsock:42:0", "and a port", service.LocalForms},
		{"linux", "vsock:42:4294967296", "and a port", service.LocalForms},
		{"linux", "vsock:*:6656", `"*" is not a CID`, service.LocalForms},
		{"windows", "hyperv:6656", "say whom it is for", service.LocalForms},
		{"windows", "hyperv:90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd:6656", "any VM of this host", service.LocalForms},
		{"windows", "hyperv:00000000-0000-0000-0000-000000000000:6656", "any VM", service.LocalForms},
	} {
		check := func(want string, err error) {
			t.Helper()
			if want == fine {
				require.NoError(t, err, "%s on %s", c.address, c.system)
			} else {
				require.ErrorContains(t, err, want, "%s on %s", c.address, c.system)
			}
		}
		_, err := guests(c.system, c.address, slog.New(slog.DiscardHandler))
		check(c.listen, err)
		_, err = service.Local(c.system, c.address, "hostswitch", service.LocalForms)
		check(c.api, err)
	}
}

func TestVMs(t *testing.T) {
	source, port, err := vms("linux", "vsock://3,42:6656", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, []uint32{3, 42}, source.(*discovery.CIDSource).CIDs)
	require.EqualValues(t, 6656, port)

	source, port, err = vms("windows", "hyperv:{"+vmID+"}:6657", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	peers, err := source.Peers(t.Context())
	require.NoError(t, err)
	require.Len(t, peers, 1)
	require.Equal(t, vmID, peers[0].ID())
	require.EqualValues(t, 6657, port)
}

// tcpPeer is in the place of a VM.
type tcpPeer struct {
	discovery.Peer
	name   string
	broken error
	opened *[]net.Listener
}

func (p tcpPeer) ID() string { return p.name }

func (p tcpPeer) Listen(uint32) (net.Listener, error) {
	if p.broken != nil {
		return nil, p.broken
	}
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	*p.opened = append(*p.opened, ln)
	return ln, err
}

// There is a listener for each VM, or none at all.
func TestListenForEach(t *testing.T) {
	var opened []net.Listener
	peers := []discovery.Peer{tcpPeer{name: "3", opened: &opened}, tcpPeer{name: "42", opened: &opened}}
	source := discovery.SourceFunc(func(context.Context) ([]discovery.Peer, error) { return peers, nil })
	all, err := listenFor(t.Context(), source, 6656)
	require.NoError(t, err)
	require.Equal(t, opened, all)
	for _, ln := range all {
		require.NoError(t, ln.Close())
	}

	opened = nil
	broken := errors.New("broken")
	peers[1] = tcpPeer{name: "42", broken: broken}
	_, err = listenFor(t.Context(), source, 6656)
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "listen for 42 on port 6656")
	require.Len(t, opened, 1)
	_, err = opened[0].Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// places returns addresses for guests and for the API where only this user connects,
// and how to dial them.
func places(t *testing.T) (guests, api string, dial func(ctx context.Context, address string) (net.Conn, error)) {
	if runtime.GOOS == "windows" {
		name := "guestnet-hostswitch-" + strconv.FormatInt(time.Now().UnixNano(), 10)
		return "npipe:" + name + "-net", "npipe:////./pipe/" + name + "-api", dialPipe
	}
	dir := servicetest.Dir(t)
	return "unix:" + dir + "/net", "unix://" + dir + "/api", func(ctx context.Context, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}
}

// The whole program, where guests and the API are this user's: a guest gets its
// lease, the API answers, and a second program does not take their places.
func TestListen(t *testing.T) {
	where, api, dial := places(t)
	log := make(lines, 1000)
	o, err := parse([]string{"-listen", where, "-api", api}, log)
	require.NoError(t, err)
	ready := make(chan string, 2)
	open, control := o.guests, o.control
	o.guests = func(ctx context.Context) ([]net.Listener, error) {
		all, err := open(ctx)
		if err != nil {
			return nil, err
		}
		ready <- settled(t, all[0])
		return all, nil
	}
	o.control = func() (net.Listener, error) {
		ln, err := control()
		if err != nil {
			return nil, err
		}
		ready <- settled(t, ln)
		return ln, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, o) }()
	var at [2]string
	for i := range at {
		select {
		case at[i] = <-ready:
		case err := <-ended:
			require.NoError(t, err)
		}
	}

	require.Regexp(t, `msg=ready listen=[^ ]+ api=[^ ]+\n$`, log.next(ctx, t))

	conn, err := dial(ctx, at[0])
	require.NoError(t, err)
	g, err := switchtest.NewGuest(conn, switchtest.Config{})
	require.NoError(t, err)
	_, err = g.DHCP(ctx)
	require.NoError(t, err)

	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, at[1]) },
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://host/leases", nil)
	require.NoError(t, err)
	response, err := client.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)

	_, err = open(ctx)
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	_, err = control()
	require.ErrorIs(t, err, socketbridge.ErrInUse)
	require.NoError(t, g.Close())
	cancel()
	require.NoError(t, <-ended)
}
