// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package hostswitch_test

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
	"github.com/rancher-sandbox/guestnet/hostswitch/switchtest"
	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// A daemon has a Supervisor run the Host, which finds its VM, shakes hands with it and
// carries its frames until it is stopped. Here the VM is a folder of sockets.
func ExampleHost() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	vm, err := os.MkdirTemp("", "vm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(vm)

	ready := make(chan struct{})
	s := lifecycle.New(lifecycle.Config{
		Restart: lifecycle.Restart{Min: 1e9, Max: 60e9},
		OnChange: func(st lifecycle.Status) {
			if fmt.Println(st.Name, st.State); st.State == lifecycle.Ready {
				close(ready)
			}
		},
	})
	err = s.Start(ctx, "network", &hostswitch.Host{
		Discoverer: &discovery.Discoverer{
			Source:   discovery.Unix(vm), // on Windows discovery.HyperV(), on Linux discovery.CIDs(42)
			Protocol: discovery.RancherDesktop,
		},
	})
	if err != nil {
		panic(err)
	}

	// The other end; in a VM guestswitch.Guest does all of this.
	peers, err := discovery.Unix(vm).Peers(ctx)
	if err != nil {
		panic(err)
	}
	guest, err := answer(ctx, peers[0])
	if err != nil {
		panic(err)
	}
	defer guest.Close()
	lease, err := guest.DHCP(ctx)
	if err != nil {
		panic(err)
	}
	<-ready
	fmt.Println("the guest has", lease.Addr)
	fmt.Println(s.Close())
	// Output:
	// network starting
	// network ready
	// the guest has 192.168.127.2/24
	// network stopping
	// network stopped
	// <nil>
}

// answer takes the handshake and connects.
func answer(ctx context.Context, host discovery.Peer) (*switchtest.Guest, error) {
	ln, err := host.Listen(discovery.RancherDesktop.HandshakePort)
	if err != nil {
		return nil, err
	}
	r := discovery.Responder{Protocol: discovery.RancherDesktop, Filter: anybody{}} // socketbridge.AllowCID(2) in a VM
	if err := r.WaitReady(ctx, ln); err != nil {
		return nil, err
	}
	conn, err := host.Dial(ctx, discovery.RancherDesktop.DataPort)
	if err != nil {
		return nil, err
	}
	return switchtest.NewGuest(conn, switchtest.Config{})
}

type anybody struct{}

func (anybody) Allow(net.Conn) error { return nil }
