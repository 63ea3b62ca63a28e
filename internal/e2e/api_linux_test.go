// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containers/gvisor-tap-vsock/pkg/client"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// apiClient is gvisor-tap-vsock's client, whose users are to notice nothing.
func apiClient(host string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *client.Client {
	return client.New(&http.Client{
		Timeout:   patience,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}, "http://"+host)
}

// testAPI drives the API as existing guests and hosts do.
func testAPI(t *testing.T, p programs) {
	l := newLab(t, p)
	l.startGuest()
	serve(t, l.guest, "0.0.0.0")
	guest := apiClient(gateway, l.guest.dial)
	host := apiClient("api", func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.api)
	})

	for name, tc := range map[string]struct {
		client *client.Client
		port   string
	}{
		"guest": {guest, "8081"},
		"host":  {host, "8082"},
	} {
		t.Run(name, func(t *testing.T) {
			local := "127.0.0.1:" + tc.port
			require.NoError(t, tc.client.Expose(&types.ExposeRequest{Local: local, Remote: ":80"}))
			require.Equal(t, banner(l.guest), l.host.run("curl", "-sS", "http://"+local))
			all, err := tc.client.List()
			require.NoError(t, err)
			require.Equal(t, []types.ExposeRequest{{Local: local, Remote: guestAddr + ":80", Protocol: types.TCP}}, all)

			err = tc.client.Expose(&types.ExposeRequest{Local: local, Remote: ":80", Protocol: types.TCP})
			require.ErrorContains(t, err, "tcp "+local, "a duplicate")
			err = tc.client.Unexpose(&types.UnexposeRequest{Local: local, Protocol: types.UDP})
			require.ErrorContains(t, err, "udp "+local, "unknown")
			const taken = "127.0.0.1:" + portEcho // by a program of the host
			err = tc.client.Expose(&types.ExposeRequest{Local: taken, Remote: ":80", Protocol: types.TCP})
			require.ErrorContains(t, err, "tcp "+taken)

			require.NoError(t, tc.client.Unexpose(&types.UnexposeRequest{Local: local, Protocol: types.TCP}))
			_, err = l.host.dial(t.Context(), "tcp4", local)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			all, err = tc.client.List()
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}

	// FAILURES 31
	t.Run("UDP in any case", func(t *testing.T) {
		const local = "127.0.0.1:8083"
		require.NoError(t, guest.Expose(&types.ExposeRequest{Local: local, Remote: guestAddr + ":" + portEcho, Protocol: "UDP"}))
		pc := l.host.listenPacket("127.0.0.1:0")
		defer func() { _ = pc.Close() }()
		echo(t, pc, local, "over UDP")
		_, err := l.host.dial(t.Context(), "tcp4", local)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.NoError(t, guest.Unexpose(&types.UnexposeRequest{Local: local, Protocol: "Udp"}))
	})

	// FAILURES 37
	t.Run("other protocols", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, []byte("the user's"), 0o600))
		for _, protocol := range []types.TransportProtocol{types.UNIX, types.NPIPE, "sctp"} {
			for name, c := range map[string]*client.Client{"guest": guest, "host": host} {
				err := c.Expose(&types.ExposeRequest{Local: file, Remote: "tcp://" + guestAddr + ":80", Protocol: protocol})
				require.ErrorContains(t, err, string(protocol)+" "+file, name)
				require.Error(t, c.Unexpose(&types.UnexposeRequest{Local: file, Protocol: protocol}), name)
			}
		}
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "the user's", string(content))
	})

	t.Run("the rest is the host's", func(t *testing.T) {
		for _, path := range []string{"/services/dhcp/leases", "/services/dns/all", "/stats", "/cam", "/leases"} {
			url := "http://" + gateway + path
			require.Equal(t, "404", l.guest.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url), path)
			url = "http://api" + path
			require.Equal(t, "200", l.host.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", l.api, url), path)
		}
		leases, err := host.ListDHCPLeases()
		require.NoError(t, err)
		require.Equal(t, guestMAC, leases[guestAddr])
		require.NoError(t, host.AddDNS(&types.Zone{Name: "added.test.", Records: []types.Record{{Name: "x", IP: net.IPv4(192, 0, 2, 1)}}}))
		require.Equal(t, "192.0.2.1", dig(l.guest, "x.added.test").answers())
		zones, err := host.ListDNS()
		require.NoError(t, err)
		require.Len(t, zones, 3)
	})

	t.Run("a guest that comes back", func(t *testing.T) {
		request := &types.ExposeRequest{Local: "127.0.0.1:8084", Remote: guestAddr + ":80", Protocol: types.TCP}
		require.NoError(t, guest.Expose(request))
		for range 2 {
			l.guestswitch.Stop()
			l.startGuest()
			require.NoError(t, guest.Expose(request), "it is what this guest has already")
			require.Error(t, guest.Expose(request), "but not twice")
			require.True(t, strings.HasPrefix(l.host.run("curl", "-sS", "http://127.0.0.1:8084"), banner(l.guest)))
		}
	})
}

// testGvforwarder: a guest that nobody here wrote.
func testGvforwarder(t *testing.T, p programs) {
	l := newLab(t, p, "-forward", "tcp:"+forwardedHTTP+"="+guestAddr+":"+portHTTP)
	l.startGvforwarder()
	require.EventuallyWithT(t, func(c *assert.CollectT) { requireFile(c, l.guest.resolvConf(), "nameserver "+gateway) }, patience, tick)
	serve(t, l.guest, "0.0.0.0")

	require.Equal(t, worldAddr, dig(l.guest, "www.example.test").answers())
	require.Equal(t, hostAlias, dig(l.guest, "host.docker.internal", "+tcp").answers())
	l.guest.run("ping", "-c", "1", "-W", "10", gateway)
	require.Equal(t, banner(l.world), l.guest.run("curl", "-sS", "http://www.example.test/"))
	require.Equal(t, banner(l.host), l.guest.run("curl", "-sS", "http://host.rancher-desktop.internal/"))
	transfer(t, l.guest, worldAddr)
	transfer(t, l.host, forwardedHTTP)
}
