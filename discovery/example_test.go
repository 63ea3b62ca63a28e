// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Wine has no unix sockets, and an Example cannot be skipped.
//go:build !windows

package discovery_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/rancher-sandbox/guestnet/discovery"
)

// A host finds its guest and gets a data connection. Both are in this process,
// the guest's ports are unix sockets, and errors are left out.
func Example() {
	dir, _ := os.MkdirTemp("", "vm")
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	protocol := discovery.RancherDesktop

	go func() { // the guest; from its side the host is the peer
		hosts, _ := discovery.Unix(dir).Peers(ctx)
		ln, _ := hosts[0].Listen(protocol.HandshakePort)
		r := &discovery.Responder{Protocol: protocol, Filter: anyone} // a real one: the host only
		if err := r.WaitReady(ctx, ln); err != nil {
			return
		}
		conn, _ := hosts[0].Dial(ctx, protocol.DataPort)
		_, _ = io.WriteString(conn, "hello")
		_ = conn.Close()
	}()

	d := &discovery.Discoverer{Source: discovery.Unix(dir), Protocol: protocol, Interval: 1e6}
	peer, _ := d.Discover(ctx)
	ln, _ := peer.Listen(protocol.DataPort)
	defer ln.Close()
	_ = d.SignalReady(ctx, peer)
	conn, _ := ln.Accept()
	defer conn.Close()
	text, _ := io.ReadAll(conn)
	fmt.Println(string(text), "from", peer.ID() == dir)
	// Output: hello from true
}

// A Source of one's own: every VM has a directory of sockets, and Match tells
// them apart.
func ExampleSource() {
	home, _ := os.MkdirTemp("", "vms")
	defer os.RemoveAll(home)
	source := discovery.SourceFunc(func(ctx context.Context) (all []discovery.Peer, err error) {
		dirs, err := filepath.Glob(filepath.Join(home, "*"))
		for _, dir := range dirs {
			peers, err := discovery.Unix(dir).Peers(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, peers...)
		}
		return all, err
	})

	for _, name := range []string{"play", "work"} { // two VMs, whose agents say who they are
		_ = os.Mkdir(filepath.Join(home, name), 0o700)
		ln, _ := net.Listen("unix", filepath.Join(home, name, "6669.sock"))
		defer ln.Close()
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, discovery.RancherDesktop.Signature)
			_ = conn.Close()
		}()
	}

	d := &discovery.Discoverer{
		Source:   source,
		Protocol: discovery.RancherDesktop,
		Match:    func(p discovery.Peer) bool { return filepath.Base(p.ID()) == "work" },
	}
	peer, _ := d.Discover(context.Background())
	fmt.Println(filepath.Base(peer.ID()))
	// Output: work
}
