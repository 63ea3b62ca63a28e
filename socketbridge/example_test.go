// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/mdlayher/vsock"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// A bridge between two unix sockets, as rdd-guest has one between vsock and Docker's.
func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)

	// The server, which reads to the end before it answers.
	server, err := net.Listen("unix", filepath.Join(dir, "server.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	go func() {
		conn, _ := server.Accept()
		question, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "you said %q", question)
		conn.Close()
	}()

	ln, err := net.Listen("unix", filepath.Join(dir, "bridge.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	bridge := &socketbridge.Bridge{
		Filter: socketbridge.AllowAll(), // the permissions of dir keep strangers out
		Dial:   socketbridge.DialUnix(server.Addr().String()),
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	go func() { ended <- bridge.Serve(ctx, ln) }()

	client, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	io.WriteString(client, "hello")
	client.(*net.UnixConn).CloseWrite()
	answer, _ := io.ReadAll(client)
	fmt.Printf("%s\n", answer)
	client.Close()

	stop()
	fmt.Println("ended:", <-ended)
	stats := bridge.Stats()
	fmt.Println(stats.Accepted, "connection,", stats.ToTarget, "bytes there,", stats.ToClient, "back")

	// Output:
	// you said "hello"
	// ended: <nil>
	// 1 connection, 5 bytes there, 16 back
}

// A peer that one of several filters lets in.
func ExampleAnyOf() {
	filter := socketbridge.AnyOf(
		socketbridge.AllowCID(2),
		socketbridge.AllowPrefix(netip.MustParsePrefix("127.0.0.0/8")),
	)
	for _, addr := range []net.Addr{
		&vsock.Addr{ContextID: 2, Port: 1024},
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1024},
		&vsock.Addr{ContextID: 3, Port: 1024},
	} {
		fmt.Println(filter.Allow(from{addr: addr}))
	}

	// Output:
	// <nil>
	// <nil>
	// socketbridge: refused vsock vm(3):1024: its CID is 3, allowed is [2]; a *vsock.Addr is no address of TCP or UDP
}
