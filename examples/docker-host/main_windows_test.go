// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

// FAILURES 27, without Docker: a client of the pipe says that it has nothing more to
// say, the guest learns it, and its answer comes back. A TCP socket is in the place
// of the guest.
func TestPipe(t *testing.T) {
	name := "guestnet-docker-host-" + strconv.FormatInt(time.Now().UnixNano(), 10)
	var stderr bytes.Buffer
	o, err := parse([]string{"-listen", "npipe:////./pipe/" + name, "-guest", "hyperv:ac2d15b8-7d3a-4b8e-9c51-0f6f0b5a9f10"}, &stderr)
	require.NoError(t, err)
	guest, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer guest.Close() //nolint:errcheck // the end
	o.bridge.Dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", guest.Addr().String())
	}
	ln, err := o.open()
	require.NoError(t, err)
	house.ServePipe(t, ln)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- service.Serve(ctx, o.bridge, ln, "testing") }()

	dialling, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	client, err := winio.DialPipeContext(dialling, `\\.\pipe\`+name)
	require.NoError(t, err)
	defer client.Close() //nolint:errcheck // the end
	server, err := guest.Accept()
	require.NoError(t, err)
	for _, c := range []net.Conn{client, server} {
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	}
	_, err = io.WriteString(client, "hi\n")
	require.NoError(t, err)
	require.NoError(t, client.(interface{ CloseWrite() error }).CloseWrite())
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "hi\n", string(got))
	_, err = io.WriteString(server, "late\n")
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err = io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "late\n", string(got))
	cancel()
	require.NoError(t, <-ended)
	require.Contains(t, stderr.String(), "stats.accepted=1")
}
