// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/guestswitch"
)

var errDialled = errors.New("dialled")

func dialNobody(context.Context) (net.Conn, error) { return nil, errDialled }

// A wrong configuration is told by the field's name, before anything is opened,
// and as an error that another attempt does not mend.
func TestWrongConfigurationNamesTheField(t *testing.T) {
	tap := func(tap guestswitch.Tap) *guestswitch.Guest {
		return &guestswitch.Guest{Dial: dialNobody, Tap: tap}
	}
	dhcp := func(d guestswitch.DHCP) *guestswitch.Guest {
		return &guestswitch.Guest{Dial: dialNobody, DHCP: d}
	}
	for field, g := range map[string]*guestswitch.Guest{
		"Dial is nil":                 {},
		"Listen is nil":               {Dial: dialNobody, Responder: &discovery.Responder{Protocol: discovery.RancherDesktop}},
		`Tap.Name "0123456789012345"`: tap(guestswitch.Tap{Name: "0123456789012345"}),
		`Tap.Name "a/b"`:              tap(guestswitch.Tap{Name: "a/b"}),
		`Tap.Name "tap%d"`:            tap(guestswitch.Tap{Name: "tap%d"}),
		`Tap.Name ".."`:               tap(guestswitch.Tap{Name: ".."}),
		`Tap.MAC "5a:94"`:             tap(guestswitch.Tap{MAC: net.HardwareAddr{0x5a, 0x94}}),
		`Tap.MAC "01:00:00:00:00:00"`: tap(guestswitch.Tap{MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}),
		`Tap.MAC "00:00:00:00:00:00"`: tap(guestswitch.Tap{MAC: make(net.HardwareAddr, 6)}),
		"Tap.MTU 67":                  tap(guestswitch.Tap{MTU: 67}),
		"Tap.MTU 65522":               tap(guestswitch.Tap{MTU: 65522}),
		"Tap.MTU -1":                  tap(guestswitch.Tap{MTU: -1}),
		"ScriptDHCP":                  dhcp(guestswitch.ScriptDHCP("")),
		"ExecDHCP":                    dhcp(guestswitch.ExecDHCP()),
		"StaticDHCP":                  dhcp(guestswitch.StaticDHCP(guestswitch.Lease{})),
	} {
		t.Run(field, func(t *testing.T) {
			err := g.Run(t.Context())
			require.ErrorContains(t, err, field)
			require.ErrorContains(t, err, "guestswitch: ")
			require.NotErrorIs(t, err, errDialled)
			var permanent interface{ Permanent() bool }
			require.ErrorAs(t, err, &permanent)
			require.True(t, permanent.Permanent())
		})
	}
}

func TestNamesOfEvents(t *testing.T) {
	require.Equal(t, "Connected", guestswitch.Connected.String())
	require.Equal(t, "Lost", guestswitch.Lost.String())
	require.Equal(t, "EventKind(?)", guestswitch.EventKind(0).String())
	require.Equal(t, "EventKind(?)", (guestswitch.Lost + 1).String())
}
