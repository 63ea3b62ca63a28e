// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/rancher-sandbox/guestnet/internal/fair"
)

// Bounds on what connections hold that were closed while their peer had not taken all
// yet: nobody waits for them, and a peer that never acknowledges would have them add up.
// Each weighs what it may hold as it is closed. Beyond the bound the oldest of who has
// most is reset, as Linux does beyond tcp_max_orphans.
const (
	maxOrphans   = 128 << 20 // bytes
	orphanWeight = 16 << 10  // of one that has nothing to send but its FIN
)

// orphans are the closed connections that have not ended yet.
type orphans struct {
	max   int // bytes
	mu    sync.Mutex
	table fair.Table[uint64, tcpip.Endpoint]
}

// orphan closes an endpoint that has so many bytes to send, and takes care of it until
// it has ended.
func (s *Stack) orphan(ep tcpip.Endpoint, wq *waiter.Queue, unsent int, peer func() uint64) {
	weight := orphanWeight + unsent
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2:
		// The peer may still send; what came out of order stays, and until the FIN is
		// sent, all that comes.
		weight += int(ep.SocketOptions().GetReceiveBufferSize())
	}
	ep.Close()
	if ended(ep) {
		return
	}
	o, who := &s.orphans, peer()
	o.mu.Lock()
	e := o.table.Add(who, ep, weight)
	var over []tcpip.Endpoint
	for o.table.Weight() > o.max {
		x := o.table.Excess()
		o.table.Remove(x)
		over = append(over, x.Value)
	}
	o.mu.Unlock()
	forget := func() {
		if ended(ep) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.table.Remove(e)
		}
	}
	// It is called with locks of the endpoint held, and is gone when the endpoint is.
	w := waiter.NewFunctionEntry(waiter.EventErr|waiter.EventHUp, func(waiter.EventMask) { forget() })
	wq.EventRegister(&w)
	forget() // it may have ended meanwhile
	for _, ep := range over {
		ep.Abort()
	}
}

// ended reports whether an endpoint holds nothing any more.
func ended(ep tcpip.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}

// unsent returns a bound, within a factor of four, on the bytes that an endpoint has not
// sent or nobody has acknowledged. gVisor tells only whether they are fewer than the send
// buffer may hold, whose size is of no use any more, and not even that after Shutdown.
func unsent(ep tcpip.Endpoint) int {
	so := ep.SocketOptions()
	size := so.GetSendBufferSize()
	defer so.SetSendBufferSize(size, false)
	for atMost := int64(1); atMost < size; atMost *= 4 {
		so.SetSendBufferSize(atMost, false)
		// An acknowledgement that comes just now sets the size itself.
		if ep.Readiness(waiter.WritableEvents)&waiter.WritableEvents != 0 && so.GetSendBufferSize() == atMost {
			return int(atMost - 1)
		}
	}
	return int(size)
}
