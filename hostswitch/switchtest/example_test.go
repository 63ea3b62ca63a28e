// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package switchtest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
)

// A guest gets a lease, looks up a name and serves HTTP, which the host asks for.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sw, err := hostswitch.New(hostswitch.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = sw.Close() }()
	guest, err := switchtest.Attach(sw, switchtest.Config{Hostname: "guest"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = guest.Close() }()

	lease, err := guest.DHCP(ctx)
	fmt.Println(lease.Addr, lease.Gateway, err)
	fmt.Println(guest.Lookup(ctx, "host.docker.internal"))

	ln, err := guest.Listen("tcp", ":80")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello from the guest")
	})}
	served := make(chan error)
	go func() { served <- server.Serve(ln) }()
	host := http.Client{Transport: &http.Transport{DialContext: sw.DialContext, DisableKeepAlives: true}}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lease.Addr.Addr().String(), nil)
	if resp, err := host.Do(req); err == nil {
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Println(string(body))
	}
	_ = server.Close()
	fmt.Println(<-served)
	// Output:
	// 192.168.127.2/24 192.168.127.1 <nil>
	// [192.168.127.254] <nil>
	// hello from the guest
	// http: Server closed
}
