// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// A client asks through a pipe and says that this was all; the answer comes after.
func ExamplePipeContext() {
	link := func() (far, near *net.TCPConn) {
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		defer ln.Close()
		dialed, _ := net.Dial("tcp", ln.Addr().String())
		accepted, _ := ln.Accept()
		return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
	}
	client, a := link()
	server, b := link()

	go func() {
		request, _ := io.ReadAll(server) // up to the client's CloseWrite
		fmt.Fprintf(server, "you said %q", request)
		server.Close()
	}()
	go func() {
		_, _ = io.WriteString(client, "hello")
		client.CloseWrite()
	}()

	stats, err := socketbridge.PipeContext(context.Background(), a, b)
	reply, _ := io.ReadAll(client)
	fmt.Println(string(reply))
	fmt.Println(stats.AToB, "bytes there,", stats.BToA, "back, error:", err)
	// Output:
	// you said "hello"
	// 5 bytes there, 16 back, error: <nil>
}
