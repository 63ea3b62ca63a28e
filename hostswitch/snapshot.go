// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// A Snapshot is what a network looks like at one moment: what a person needs who
// asks why no traffic flows. It marshals to JSON, and as a [slog.LogValuer] to
// its main figures.
type Snapshot struct {
	Time     time.Time      `json:"time"`
	Ports    []PortSnapshot `json:"ports"`
	CAM      []CAMEntry     `json:"cam"`
	Leases   []Lease        `json:"leases"`
	ARP      []ARPEntry     `json:"arp"`
	Forwards []Forward      `json:"forwards"`

	// Since New, over all connections.
	BytesIn  uint64 `json:"bytesIn"`  // from guests
	BytesOut uint64 `json:"bytesOut"` // to guests
	// Frames dropped, by reason. macTableFull: sources not learned. datagram: those, of
	// guests and to forwards, that no socket took: they had no room to wait, their flow
	// could not be opened or gave way to another, or a write failed, be it for what
	// became of the one before.
	Drops          map[string]uint64 `json:"drops"`
	Connections    int               `json:"connections"`
	Flows          int               `json:"flows"`                   // conversations of datagrams
	LastFrame      time.Time         `json:"lastFrame,omitzero"`      // the last valid one of any guest
	SinceLastFrame time.Duration     `json:"sinceLastFrame,omitzero"` // at Time; ns
}

// A PortSnapshot is one guest's connection.
type PortSnapshot struct {
	ID        uint64            `json:"id"`
	Name      string            `json:"name"`
	Since     time.Time         `json:"since"`
	FramesIn  uint64            `json:"framesIn"`
	BytesIn   uint64            `json:"bytesIn"`
	FramesOut uint64            `json:"framesOut"`
	BytesOut  uint64            `json:"bytesOut"`
	Queued    int               `json:"queued"` // bytes that wait for the guest to read
	Drops     map[string]uint64 `json:"drops"`
	LastFrame time.Time         `json:"lastFrame,omitzero"`
}

// A CAMEntry says behind which port an Ethernet address is.
type CAMEntry struct {
	MAC  string    `json:"mac"` // as in "5a:94:ef:e4:0c:ee"
	Port uint64    `json:"port"`
	Seen time.Time `json:"seen"`
}

// A Lease is an address that a guest has, or that is reserved for one.
type Lease struct {
	Addr     netip.Addr `json:"addr"`
	MAC      string     `json:"mac"`
	Hostname string     `json:"hostname,omitempty"` // what the guest calls itself
	Static   bool       `json:"static"`
	Expires  time.Time  `json:"expires,omitzero"` // zero: reserved, and not asked for yet
}

// An ARPEntry is what the gateway knows of a guest's address.
type ARPEntry struct {
	Addr  netip.Addr `json:"addr"`
	MAC   string     `json:"mac,omitempty"` // empty while it is being asked for
	State string     `json:"state"`         // as RFC 4861 names them
}

// Snapshot says what the network looks like now. On a closed Switch it has what
// is left to say.
func (s *Switch) Snapshot() Snapshot {
	snap := Snapshot{Time: time.Now(), Forwards: s.Forwards(), Connections: s.relays.len()}
	s.mu.Lock()
	sum := s.gone.clone()
	ports := *s.ports.Load()
	s.mu.Unlock()
	for _, p := range ports {
		ps := p.snapshot()
		sum.add(ps)
		snap.Ports = append(snap.Ports, ps)
	}
	slices.SortFunc(snap.Ports, func(a, b PortSnapshot) int { return cmp.Compare(a.ID, b.ID) })
	snap.BytesIn, snap.BytesOut, snap.Drops = sum.bytesIn, sum.bytesOut, sum.drops
	if !sum.lastFrame.IsZero() {
		snap.LastFrame = sum.lastFrame
		snap.SinceLastFrame = snap.Time.Sub(snap.LastFrame)
	}
	s.cam.each(func(mac packet.MAC, p *port, seen time.Time) {
		snap.CAM = append(snap.CAM, CAMEntry{MAC: mac.String(), Port: p.id, Seen: seen})
	})
	slices.SortFunc(snap.CAM, func(a, b CAMEntry) int { return cmp.Compare(a.MAC, b.MAC) })
	for _, l := range s.dhcp.Leases() {
		snap.Leases = append(snap.Leases, Lease{Addr: l.Addr, MAC: l.MAC.String(), Hostname: l.Hostname, Static: l.Static, Expires: l.Expires})
	}
	for _, n := range s.stack.Neighbors() {
		snap.ARP = append(snap.ARP, ARPEntry{Addr: n.Addr, MAC: n.MAC.String(), State: n.State})
	}
	slices.SortFunc(snap.ARP, func(a, b ARPEntry) int { return a.Addr.Compare(b.Addr) })
	s.flows.each(func(*flow) { snap.Flows++ })
	if n := s.flows.dropped.Load(); n > 0 {
		snap.Drops["datagram"] = n
	}
	return snap
}

// totals is what many ports have done together.
type totals struct {
	bytesIn, bytesOut uint64
	drops             map[string]uint64
	lastFrame         time.Time
}

func (t *totals) add(p PortSnapshot) {
	t.bytesIn += p.BytesIn
	t.bytesOut += p.BytesOut
	if t.drops == nil {
		t.drops = make(map[string]uint64)
	}
	for reason, n := range p.Drops {
		t.drops[reason] += n
	}
	if p.LastFrame.After(t.lastFrame) {
		t.lastFrame = p.LastFrame
	}
}

func (t *totals) clone() totals {
	c := *t
	if c.drops = maps.Clone(t.drops); c.drops == nil {
		c.drops = make(map[string]uint64)
	}
	return c
}

func (p *port) snapshot() PortSnapshot {
	ps := PortSnapshot{
		ID: p.id, Name: p.name, Since: p.attached,
		FramesIn: p.framesIn.Load(), BytesIn: p.bytesIn.Load(),
		FramesOut: p.framesOut.Load(), BytesOut: p.bytesOut.Load(),
		Drops: map[string]uint64{},
	}
	for i := range p.drops {
		if n := p.drops[i].Load(); n > 0 {
			ps.Drops[dropNames[i]] = n
		}
	}
	queued, full := p.queue.Len()
	ps.Queued = queued
	if full > 0 {
		ps.Drops["queueFull"] = full
	}
	if ns := p.lastFrame.Load(); ns != 0 {
		ps.LastFrame = time.Unix(0, ns)
	}
	return ps
}

// LogValue implements [slog.LogValuer].
func (s Snapshot) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.Int("ports", len(s.Ports)),
		slog.Uint64("bytesIn", s.BytesIn),
		slog.Uint64("bytesOut", s.BytesOut),
		slog.Int("connections", s.Connections),
		slog.Int("flows", s.Flows),
		slog.Duration("sinceLastFrame", s.SinceLastFrame),
	}
	if len(s.Drops) > 0 {
		attrs = append(attrs, slog.Any("drops", s.Drops))
	}
	for _, a := range s.ARP {
		attrs = append(attrs, slog.String("arp "+a.Addr.String(), a.MAC+" "+a.State))
	}
	return slog.GroupValue(attrs...)
}
