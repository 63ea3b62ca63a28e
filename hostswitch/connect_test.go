// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// POST /connect turns a connection into a guest's, as gvforwarder has it: frames
// follow the request at once, in the same segment it may be, and no response
// comes. The server's deadlines are not the guest's.
func TestConnect(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	api := httptest.NewUnstartedServer(sw.Handler())
	api.Config.ReadTimeout, api.Config.WriteTimeout, api.Config.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	api.Start()
	defer api.Close()

	for name, split := range map[string]int{"frame with the request": 0, "half of it": 10, "frame after it": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			c := hostDial(t, "tcp", api.Listener.Addr().String())
			g := &guest{mac: guestMAC, addr: guestAddr(2)}
			ask := g.whoHas(gateway)
			wire := append(binary.LittleEndian.AppendUint16(nil, uint16(len(ask))), ask...)
			rest := min(len(wire), split)
			_, err := c.Write(append([]byte("POST /connect HTTP/1.1\r\nHost: x\r\n\r\n"), wire[:len(wire)-rest]...))
			require.NoError(t, err)
			eventually(t, func() bool { return len(sw.Snapshot().Ports) == 1 }, "attached")
			_, err = c.Write(wire[len(wire)-rest:])
			require.NoError(t, err)
			r := frame.NewReader(c)
			f, err := r.Next()
			require.NoError(t, err)
			e, ok := packet.ParseEthernet(f)
			require.True(t, ok, "frames come, no response")
			require.EqualValues(t, packet.EtherARP, e.Type)

			since := sw.Snapshot().Ports[0].Since
			eventually(t, func() bool { return time.Since(since) > 2*api.Config.ReadTimeout }, "longer than the server's patience")
			_, err = c.Write(wire)
			require.NoError(t, err)
			_, err = r.Next()
			require.NoError(t, err)

			require.NoError(t, c.(*net.TCPConn).CloseWrite())
			_, err = io.Copy(io.Discard, c)
			require.NoError(t, err, "the end is answered with the end")
			eventually(t, func() bool { return len(sw.Snapshot().Ports) == 0 }, "gone")
		})
	}
}

func TestConnectNeedsAConnection(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	w := httptest.NewRecorder() // cannot be hijacked, as HTTP/2 can not
	sw.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/connect", nil))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "hand over")
	require.Empty(t, sw.Snapshot().Ports)

	w = httptest.NewRecorder()
	sw.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/connect", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
}
