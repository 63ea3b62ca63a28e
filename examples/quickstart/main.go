// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command quickstart shows a whole virtual network in one process: a switch, a
// guest, and what they do for each other. It needs no flags, no root and no VM,
// runs on any system, and exits with 1 if a step fails.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
)

const usage = `usage: quickstart
Shows a whole virtual network in one process: a switch, a guest, and what they do
for each other. It takes no arguments, and needs neither root nor a VM.
`

func main() {
	os.Exit(command(os.Args[1:], os.Stderr))
}

// command returns the exit code: 0 if every step succeeded, 1 if one failed, 2 for a
// wrong command line.
func command(args []string, stderr io.Writer) int {
	if len(args) > 0 {
		_, _ = io.WriteString(stderr, usage)
		switch args[0] {
		case "-h", "-help", "--help":
			return 0
		}
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	return 0
}

// A tour is what the steps work with.
type tour struct {
	sw    *hostswitch.Switch
	guest *switchtest.Guest
}

func run(ctx context.Context) error {
	before := runtime.NumGoroutine()
	t := &tour{}
	defer t.close()
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"start the network", t.start},
		{"attach a guest, which gets a lease", t.lease},
		{"name inside the network: host.docker.internal", t.nameInside},
		{"name that the host's resolver knows: localhost", t.nameForwarded},
		{"guest reaches a server on the host's loopback", t.reachHost},
		{"guest exposes a port, the host reaches it", t.expose},
		{"half-closed request, answered late", t.halfClose},
		{"snapshot", t.snapshot},
		{"close: nothing is left", func(ctx context.Context) (string, error) { return t.closed(ctx, before) }},
	} {
		result, err := step.do(ctx)
		if err != nil {
			fmt.Printf("FAIL  %s\n", step.name)
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("ok    %-48s %s\n", step.name, result)
	}
	return nil
}

func (t *tour) start(context.Context) (result string, err error) {
	t.sw, err = hostswitch.New(hostswitch.Config{}) // what released guests expect
	return "192.168.127.0/24, gateway .1", err
}

func (t *tour) lease(ctx context.Context) (result string, err error) {
	// A real guest's frames come over vsock or a unix socket: Switch.Serve.
	if t.guest, err = switchtest.Attach(t.sw, switchtest.Config{Hostname: "quickstart"}); err != nil {
		return "", err
	}
	lease, err := t.guest.DHCP(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, MTU %d", lease.Addr, lease.MTU), nil
}

func (t *tour) nameInside(ctx context.Context) (string, error) {
	addrs, err := t.guest.Resolver().LookupHost(ctx, "host.docker.internal.")
	return strings.Join(addrs, " "), err
}

func (t *tour) nameForwarded(ctx context.Context) (string, error) {
	addrs, err := t.guest.Lookup(ctx, "localhost.")
	return fmt.Sprint(addrs), err
}

func (t *tour) reachHost(ctx context.Context) (string, error) {
	url, stop, err := serveHTTP(ctx, "hello from the host")
	if err != nil {
		return "", err
	}
	defer stop()
	// 192.168.127.254 is the host's loopback as the guest sees it.
	url = strings.Replace(url, "127.0.0.1", "192.168.127.254", 1)
	return get(ctx, t.guest.HTTPClient(), url)
}

func (t *tour) expose(ctx context.Context) (string, error) {
	port, stop, err := t.serveGuest(func(c net.Conn) { _, _ = io.WriteString(c, "hello from the guest") })
	if err != nil {
		return "", err
	}
	defer stop()
	// The guest asks over HTTP, as existing guests do. Port 0: the host chooses.
	local, err := t.freePort(ctx)
	if err != nil {
		return "", err
	}
	body := fmt.Sprintf(`{"local":%q,"remote":":%d","protocol":"tcp"}`, local, port)
	if _, err := post(ctx, t.guest.HTTPClient(), "http://192.168.127.1/services/forwarder/expose", body); err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", local)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	text, err := io.ReadAll(conn)
	return fmt.Sprintf("%s: %q", local, text), err
}

func (t *tour) halfClose(ctx context.Context) (string, error) {
	port, stop, err := t.serveGuest(func(c net.Conn) {
		request, _ := io.ReadAll(c) // ends when the host half-closes
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		_, _ = fmt.Fprintf(c, "got %d bytes", len(request))
	})
	if err != nil {
		return "", err
	}
	defer stop()
	conn, err := t.sw.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", t.guest.Addr(), port))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "request"); err != nil {
		return "", err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	if err == nil && string(text) != "got 7 bytes" {
		err = fmt.Errorf("the answer is %q", text)
	}
	return fmt.Sprintf("%q after 1 s", text), err
}

func (t *tour) snapshot(context.Context) (string, error) {
	s := t.sw.Snapshot()
	if _, err := json.Marshal(s); err != nil {
		return "", err
	}
	if len(s.Ports) != 1 || s.BytesIn == 0 {
		return "", fmt.Errorf("unexpected: %+v", s)
	}
	seen := []string{fmt.Sprintf("%d bytes from the guest, %d to it", s.BytesIn, s.BytesOut)}
	for _, f := range s.Forwards {
		seen = append(seen, fmt.Sprintf("forward %s -> %s", f.Local, f.Remote))
	}
	return strings.Join(seen, ", "), nil
}

func (t *tour) closed(ctx context.Context, before int) (string, error) {
	during := runtime.NumGoroutine()
	t.close()
	// A goroutine that has said it is done may take a moment to be gone.
	for runtime.NumGoroutine() > before {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		case <-time.After(time.Millisecond):
		}
	}
	if _, err := t.sw.DialContext(ctx, "tcp", "192.168.127.2:80"); !errors.Is(err, net.ErrClosed) {
		return "", fmt.Errorf("a closed switch still dials: %w", err)
	}
	return fmt.Sprintf("goroutines: %d before, %d during, %d after", before, during, runtime.NumGoroutine()), nil
}

// close may be called twice.
func (t *tour) close() {
	if t.guest != nil {
		_ = t.guest.Close()
	}
	if t.sw != nil {
		_ = t.sw.Close()
	}
}

// freePort has the host choose a port, and gives it back at once.
func (t *tour) freePort(ctx context.Context) (string, error) {
	f, err := t.sw.Expose(ctx, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":1"})
	if err != nil {
		return "", err
	}
	return f.Local, t.sw.Unexpose(f.Protocol, f.Local)
}

// serveGuest serves connections in the guest until stop is called.
func (t *tour) serveGuest(serve func(net.Conn)) (port int, stop func(), err error) {
	ln, err := t.guest.Listen("tcp", ":0")
	if err != nil {
		return 0, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			_ = c.Close()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port, func() { _ = ln.Close(); <-done }, nil
}

func serveHTTP(ctx context.Context, text string) (url string, stop func(), err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	return "http://" + ln.Addr().String(), func() { _ = server.Close(); <-done }, nil
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	return do(client, req)
}

func post(ctx context.Context, client *http.Client, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	return do(client, req)
}

func do(client *http.Client, req *http.Request) (string, error) {
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return fmt.Sprintf("%q", text), err
}
