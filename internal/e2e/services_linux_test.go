// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Ports of the services that world, host and guests have alike.
const (
	portHTTP = "80"   // GET / says where it is, GET /blob, PUT /sum answers with the SHA-256
	portEcho = "7"    // TCP and UDP
	portLate = "2000" // answers a request lateReply after it was half-closed
	portSoon = "2001" // answers a request when it was half-closed
	portNone = "2002" // refuses
)

const lateReply = 2 * time.Second

// blob is what is transferred: big enough that windows and queues fill.
var blob = bytes.Repeat([]byte("0123456789abcdef, but not too much of it\n"), 8<<20/42)

func blobSum() string { return fmt.Sprintf("%x", sha256.Sum256(blob)) }

// banner is what a namespace's HTTP server answers.
func banner(n *namespace) string { return "this is " + n.name }

// serve offers all services at an address of the namespace, until the test ends.
func serve(t *testing.T, n *namespace, address string) {
	t.Helper()
	serveHTTP(t, n, net.JoinHostPort(address, portHTTP))
	serveTCP(t, n, net.JoinHostPort(address, portEcho), func(c net.Conn) {
		_, _ = io.Copy(c, c)
	})
	for port, delay := range map[string]time.Duration{portLate: lateReply, portSoon: 0} {
		serveTCP(t, n, net.JoinHostPort(address, port), func(c net.Conn) {
			request, err := io.ReadAll(c)
			if err == nil {
				<-time.After(delay)
				_, _ = fmt.Fprintf(c, "answer to %s", request)
			}
		})
	}
	serveUDP(t, n, net.JoinHostPort(address, portEcho))
}

func serveHTTP(t *testing.T, n *namespace, address string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, banner(n)) })
	mux.HandleFunc("GET /blob", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(blob) })
	mux.HandleFunc("PUT /sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err == nil {
			_, _ = fmt.Fprintf(w, "%x", sum.Sum(nil))
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	ln := n.listen(address)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		_ = server.Close()
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
}

// serveTCP hands each connection to handle, and closes it then.
func serveTCP(t *testing.T, n *namespace, address string, handle func(net.Conn)) {
	t.Helper()
	ln := n.listen(address)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(2 * patience))
			all.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
}

func serveUDP(t *testing.T, n *namespace, address string) {
	t.Helper()
	pc := n.listenPacket(address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			length, from, err := pc.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = pc.WriteTo(buf[:length], from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
}
