// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind int

// What a Switch tells.
const (
	Connected     EventKind = iota + 1 // a guest's connection was attached
	Lost                               // it ended; Up says how long it was there, Err why if it was not simply closed
	Leased                             // a guest got an address, not: the same again
	LeaseMismatch                      // forwards go to an address that this guest did not get; Err is a *LeaseMismatchError
	Exposed                            // a port of the host was opened
	Unexposed                          // it was closed
	Refused                            // a guest asked for what it may not have, at most one a second for each, or has the MAC of another, once for a connection; Err says what
)

// What a Host tells beside that.
const (
	Waiting     EventKind = iota + 101 // there is no connection with the guest; every 30 s
	Found                              // a VM has answered the handshake
	Phantom                            // it took READY, but did not connect; hands are shaken again
	Short                              // the third connection in a row, or a later one, ended within seconds
	Stalled                            // frames go out, and none has come in for Host.StallTimeout
	Recovered                          // frames come again after Lost or Stalled
	GuestFailed                        // Host.OnGuest returned an error and is called again
)

var eventNames = map[EventKind]string{
	Connected: "connected", Lost: "lost", Leased: "leased", LeaseMismatch: "lease mismatch",
	Exposed: "exposed", Unexposed: "unexposed", Refused: "refused",
	Waiting: "waiting", Found: "found", Phantom: "phantom", Short: "short", Stalled: "stalled",
	Recovered: "recovered", GuestFailed: "guest failed",
}

// String returns the kind's name.
func (k EventKind) String() string {
	if name, ok := eventNames[k]; ok {
		return name
	}
	return fmt.Sprintf("EventKind(%d)", int(k))
}

// An Event is something that happened to a network, for who runs it to know.
type Event struct {
	Kind     EventKind
	Time     time.Time
	Peer     string        // the guest: its connection's name or its address
	Forward  *Forward      // of Exposed and Unexposed
	Up       time.Duration // of Lost and Short: how long the connection lasted
	Short    int           // of a Host's Lost: connections in a row that ended within seconds
	Err      error
	Snapshot Snapshot // of Lost and Short: taken before the connection was forgotten; of others, when they are delivered
}

// A LeaseMismatchError says that a guest is there, but not where the forwards go:
// its MAC is not the one that the address is reserved for.
type LeaseMismatchError struct {
	MAC         net.HardwareAddr
	Addr        netip.Addr // what the guest got
	Reserved    netip.Addr // where forwards go
	ReservedFor net.HardwareAddr
}

// Error implements error.
func (e *LeaseMismatchError) Error() string {
	return fmt.Sprintf("hostswitch: guest %s got %s, but forwards go to %s, which is reserved for %s: give the guest that MAC, or change Config.Leases",
		e.MAC, e.Addr, e.Reserved, e.ReservedFor)
}

// maxEvents bounds the events that wait for a slow OnEvent.
const maxEvents = 1024

// events delivers one at a time, from a goroutine that is there only while there
// is something to deliver.
type events struct {
	handler  func(Event)
	snapshot func() Snapshot // of the moment of delivery

	mu      sync.Mutex
	queue   []Event
	running bool
	closed  bool
	wg      sync.WaitGroup
}

func (e *events) emit(ev Event) { e.emitWith(ev, nil) }

// emitWith is emit for an event whose snapshot has to be taken now.
func (e *events) emitWith(ev Event, snapshot func() Snapshot) {
	if e.handler == nil {
		return
	}
	if snapshot != nil {
		ev.Snapshot = snapshot()
	}
	ev.Time = time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if len(e.queue) == maxEvents {
		e.queue = e.queue[1:]
	}
	e.queue = append(e.queue, ev)
	if !e.running {
		e.running = true
		e.wg.Go(e.deliver)
	}
}

func (e *events) deliver() {
	for {
		e.mu.Lock()
		if len(e.queue) == 0 {
			e.queue, e.running = nil, false
			e.mu.Unlock()
			return
		}
		ev := e.queue[0]
		e.queue = e.queue[1:]
		e.mu.Unlock()
		if ev.Snapshot.Time.IsZero() { // a Host passes on what its Switch tells
			ev.Snapshot = e.snapshot()
		}
		e.handler(ev)
	}
}

// close delivers what is left, and waits for it.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.wg.Wait()
}
