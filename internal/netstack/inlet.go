// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/rancher-sandbox/guestnet/internal/frame"
	"github.com/rancher-sandbox/guestnet/internal/packet"
)

// An Inlet is where the frames of one sender come in. Consecutive segments of a
// TCP connection are handed to the stack as one: what the stack does for a segment
// costs more than what it does for a byte. (gVisor has this too, in
// pkg/tcpip/stack/gro, whose Flush leaves packets behind.) It has one user at a
// time.
type Inlet struct {
	stack *Stack
	runs  [8]run // of connections; a sender has few at once in a batch
	used  int
	next  int // to make room when all are used
}

// A run is the beginning of a connection's segments.
type run struct {
	frame   []byte // headers of the first segment, with room for those of any
	tcp     int    // where its TCP header is
	segment int    // what the first segment carries, and all but the last
	end     uint32 // sequence number that is next
	view    *buffer.View
}

// NewInlet returns an inlet without anything in it.
func (s *Stack) NewInlet() *Inlet { return &Inlet{stack: s} }

// maxRun is what the payload of a run may be, so that it is an IPv4 packet still.
const maxRun = 1<<16 - 1 - 60 - 60

const (
	tcpLen  = 20
	flagACK = 0x10
	flagPSH = 0x08
)

// Deliver hands a frame whose header has passed Check to the stack, which copies
// it: at once, or when Flush is called.
func (in *Inlet) Deliver(h frame.Header, f []byte) {
	tcp, headers, ok := in.candidate(h, f)
	if !ok {
		in.Flush() // what came before goes first
		in.stack.deliver(h, f, nil)
		return
	}
	payload := f[headers:]
	for i := range in.used {
		r := &in.runs[i]
		if !r.sameConnection(f, tcp) {
			continue
		}
		if r.continues(f, tcp, headers, len(payload)) {
			r.add(f, payload)
			if len(payload) < r.segment || f[tcp+13]&flagPSH != 0 {
				in.deliver(i)
			}
			return
		}
		in.deliver(i)
		break
	}
	if f[tcp+13]&flagPSH != 0 || len(payload) == 0 {
		in.stack.deliver(frame.Header{Flags: frame.NeedsChecksum}, f, nil) // it was verified
		return
	}
	in.begin(f, tcp, headers)
}

// candidate says where the TCP header and the payload of a segment begin that may
// be part of a run: whole, intact, and with nothing to say but data and ACK.
func (in *Inlet) candidate(h frame.Header, f []byte) (tcp, headers int, ok bool) {
	const ip = packet.EthernetLen
	if h.GSOType != frame.GSONone || len(f) < ip+packet.IPv4Len+tcpLen ||
		binary.BigEndian.Uint16(f[12:]) != packet.EtherIPv4 || f[ip] != 0x45 || f[ip+9] != packet.ProtoTCP ||
		binary.BigEndian.Uint16(f[ip+6:])&0x3fff != 0 || int(binary.BigEndian.Uint16(f[ip+2:])) != len(f)-ip {
		return 0, 0, false
	}
	tcp = ip + packet.IPv4Len
	headers = tcp + int(f[tcp+12]>>4)*4
	if headers < tcp+tcpLen || headers > len(f) || f[tcp+13]&^flagPSH != flagACK || string(f[:6]) != string(in.stack.link.addr) {
		return 0, 0, false
	}
	return tcp, headers, h.Flags&frame.NeedsChecksum != 0 || packet.Intact(f)
}

// sameConnection compares addresses and ports.
func (r *run) sameConnection(f []byte, tcp int) bool {
	return bytes.Equal(r.frame[tcp-8:tcp+4], f[tcp-8:tcp+4])
}

// continues reports whether a segment is the next, with all else the same: type of
// service, time to live, ACK, window, options.
func (r *run) continues(f []byte, tcp, headers, payload int) bool {
	const ip = packet.EthernetLen
	return payload > 0 && payload <= r.segment && r.view.Size()+payload <= maxRun && headers == len(r.frame) &&
		binary.BigEndian.Uint32(f[tcp+4:]) == r.end &&
		r.frame[ip+1] == f[ip+1] && r.frame[ip+8] == f[ip+8] &&
		bytes.Equal(r.frame[tcp+8:tcp+13], f[tcp+8:tcp+13]) &&
		bytes.Equal(r.frame[tcp+14:tcp+16], f[tcp+14:tcp+16]) &&
		bytes.Equal(r.frame[tcp+tcpLen:], f[tcp+tcpLen:headers])
}

func (r *run) add(f, payload []byte) {
	_, _ = r.view.Write(payload)
	r.end += uint32(len(payload))
	r.frame[r.tcp+13] |= f[r.tcp+13]
}

func (in *Inlet) begin(f []byte, tcp, headers int) {
	i := in.used
	if i == len(in.runs) {
		in.next = (in.next + 1) % len(in.runs)
		i = in.next
		in.deliver(i)
		i = in.used
	}
	in.used++
	r := &in.runs[i]
	r.frame = append(r.frame[:0], f[:headers]...)
	r.tcp, r.segment = tcp, len(f)-headers
	r.end = binary.BigEndian.Uint32(f[tcp+4:])
	r.view = buffer.NewView(maxRun)
	r.add(f, f[headers:])
}

// deliver ends a run.
func (in *Inlet) deliver(i int) {
	r := in.runs[i]
	const ip = packet.EthernetLen
	binary.BigEndian.PutUint16(r.frame[ip+2:], uint16(len(r.frame)-ip+r.view.Size()))
	view := r.view
	if view.Size() < maxRun/2 { // the stack counts what a view holds, not what it is
		view = buffer.NewViewWithData(r.view.AsSlice())
		r.view.Release()
	}
	in.stack.deliver(frame.Header{}, r.frame, view)
	in.used--
	in.runs[i], in.runs[in.used] = in.runs[in.used], run{frame: r.frame}
}

// Flush hands over what was kept back. It is to be called before waiting for more.
func (in *Inlet) Flush() {
	for in.used > 0 {
		in.deliver(0)
	}
}
