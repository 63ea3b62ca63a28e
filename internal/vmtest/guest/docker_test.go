// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package guest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
)

// testDocker: rdd-guest in front of a server that behaves as Docker's does. The
// host is served; who is in the guest is refused before the server is dialled
// (FAILURES 10).
func testDocker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	socket, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	d := docker{events: make(chan string), gone: make(chan struct{}), end: make(chan struct{})}
	var dialled atomic.Int64
	server := http.Server{Handler: d.handler(), ReadHeaderTimeout: talk.Patience, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			dialled.Add(1)
		}
	}}
	serverDone := make(chan error, 1)
	go func() { serverDone <- server.Serve(socket) }()

	self, err := os.Executable()
	require.NoError(t, err)
	bridge := start(t, exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(self), "rdd-guest"),
		"-listen", fmt.Sprint("vsock:", talk.DockerPort), "-target", "unix:"+path,
		"-allow", fmt.Sprint("cid:", *host), "-drain", talk.Patience.String()))
	bridge.says("msg=ready")

	strangers := refusesInsiders(t, talk.DockerPort, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
	require.Zero(t, dialled.Load())
	tellHost(t, talk.BeginPort)
	select {
	case <-d.end:
	case <-time.After(talk.Patience):
		require.Fail(t, "the host has not come to an end")
	}
	require.NoError(t, bridge.cmd.Process.Signal(unix.SIGTERM))
	require.NoError(t, bridge.end())
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-serverDone, http.ErrServerClosed)
	require.Contains(t, bridge.last, "msg=ended")
	require.Contains(t, bridge.last, fmt.Sprintf("stats.accepted=%d stats.refused=%d stats.failed_dials=0 stats.active=0", dialled.Load(), strangers))
}

// docker is what is special of Docker's API.
type docker struct {
	events chan string   // to be told to who listens
	gone   chan struct{} // closed when a client has gone away
	end    chan struct{}
}

func (d docker) handler() http.Handler {
	mux := http.NewServeMux()
	for what, f := range map[string]func(talk.Stream){
		"sum": func(s talk.Stream) { _ = talk.Answer(s) },
		"cat": func(s talk.Stream) { _, _ = io.Copy(s.Conn, s.Ahead) },
		"yes": func(s talk.Stream) {
			for b := make([]byte, talk.Short); ; {
				if _, err := s.Write(b); err != nil {
					close(d.gone)
					return
				}
			}
		},
	} {
		mux.Handle("POST /exec/"+what, rawStream(f))
	}
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "start\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case event := <-d.events:
			_, _ = io.WriteString(w, event)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /stop", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case d.events <- "die\n":
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "not all of it")
	})
	mux.HandleFunc("GET /gone", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-d.gone:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /end", func(http.ResponseWriter, *http.Request) { close(d.end) })
	return mux
}

// rawStream makes a raw stream of a connection, as Docker does: with 101 if the client
// has asked to upgrade, and without if it has not.
func rawStream(f func(talk.Stream)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, ahead, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer conn.Close() //nolint:errcheck // the client is told by what it reads
		status := "200 OK\r\n"
		if r.Header.Get("Upgrade") == "tcp" {
			status = "101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"Content-Type: application/vnd.docker.raw-stream\r\n\r\n")
		f(talk.Stream{Conn: conn, Ahead: ahead})
	}
}
