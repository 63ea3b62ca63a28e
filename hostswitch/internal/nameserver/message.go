// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerLen   = 12
	maxQuery    = 4096
	maxUDPReply = 1232
)

func isResponse(msg []byte) bool        { return msg[2]&0x80 != 0 }
func isTruncated(msg []byte) bool       { return msg[2]&0x02 != 0 }
func opcodeOf(msg []byte) int           { return int(msg[2] >> 3 & 0xf) }
func rcodeOf(msg []byte) int            { return int(msg[3] & 0xf) }
func questionCount(msg []byte) uint16   { return binary.BigEndian.Uint16(msg[4:]) }
func messageID(msg []byte) uint16       { return binary.BigEndian.Uint16(msg) }
func setMessageID(msg []byte, v uint16) { binary.BigEndian.PutUint16(msg, v) }

// questionEnd returns the offset behind the one question of msg. A name at the
// start of a message has nothing to point back to, so compression is an error.
func questionEnd(msg []byte) (int, bool) {
	if len(msg) < headerLen || questionCount(msg) != 1 {
		return 0, false
	}
	for off := headerLen; off < len(msg); {
		n := int(msg[off])
		off += 1 + n
		switch {
		case n > 63 || off-headerLen > 255:
			return 0, false
		case n == 0:
			return off + 4, off+4 <= len(msg) // type and class
		}
	}
	return 0, false
}

// isReplyTo reports whether resp is an answer to query: the same ID, opcode and
// question. Case may differ, for some servers do not keep it. An error may come
// without the question.
func isReplyTo(query, resp []byte) bool {
	if len(resp) < headerLen || !isResponse(resp) || messageID(resp) != messageID(query) || opcodeOf(resp) != opcodeOf(query) {
		return false
	}
	if questionCount(resp) == 0 {
		return rcodeOf(resp) != dns.RcodeSuccess && rcodeOf(resp) != dns.RcodeNameError
	}
	end, ok := questionEnd(query)
	respEnd, respOK := questionEnd(resp)
	if !ok || !respOK || end != respEnd || string(query[end-4:end]) != string(resp[end-4:end]) {
		return false
	}
	for i := headerLen; i < end-4; i++ { // the length bytes are below 'A'
		if lower(query[i]) != lower(resp[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// restoreQuestion gives resp, which isReplyTo query, the client's spelling: stub
// resolvers check it (draft-vixie-dnsext-dns0x20).
func restoreQuestion(query, resp []byte) {
	if end, ok := questionEnd(query); ok && questionCount(resp) == 1 {
		copy(resp[headerLen:end], query[headerLen:end])
	}
}

// A request is a query that has been checked.
type request struct {
	wire    []byte
	network string  // "udp" or "tcp"
	msg     dns.Msg // without a question if that could not be read
	opt     *dns.OPT
	limit   int // size of the answer
}

// parseRequest returns a request fit for reply, and the rcode it has earned
// already: RcodeSuccess if it is a proper query. The query has a header.
func parseRequest(network string, query []byte) (*request, int) {
	r := &request{wire: query, network: network, limit: dns.MinMsgSize}
	if network != "udp" {
		r.network, r.limit = "tcp", dns.MaxMsgSize
	}
	r.msg.Id = messageID(query)
	r.msg.Opcode = opcodeOf(query)
	r.msg.RecursionDesired = query[2]&0x01 != 0
	if r.msg.Opcode != dns.OpcodeQuery {
		return r, dns.RcodeNotImplemented
	}
	if _, ok := questionEnd(query); !ok || len(query) > maxQuery {
		return r, dns.RcodeFormatError
	}
	if err := r.msg.Unpack(query); err != nil || len(r.msg.Question) != 1 {
		return r, dns.RcodeFormatError
	}
	for _, rr := range r.msg.Extra {
		opt, ok := rr.(*dns.OPT)
		switch {
		case !ok:
			continue
		case r.opt != nil || opt.Hdr.Name != ".":
			return r, dns.RcodeFormatError // RFC 6891, section 6.1.1
		}
		r.opt = opt
	}
	if r.opt != nil {
		if r.network == "udp" {
			r.limit = min(max(int(r.opt.UDPSize()), dns.MinMsgSize), maxUDPReply)
		}
		if r.opt.Version() != 0 {
			return r, dns.RcodeBadVers
		}
	}
	return r, dns.RcodeSuccess
}

func (r *request) reply(rcode int, authoritative bool, answer, authority []dns.RR) []byte {
	m := new(dns.Msg)
	m.SetRcode(&r.msg, rcode)
	m.Authoritative, m.RecursionAvailable, m.Compress = authoritative, true, true
	m.Answer, m.Ns = answer, authority
	if r.opt != nil {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(maxUDPReply)
		if r.opt.Do() {
			opt.SetDo()
		}
		m.Extra = []dns.RR{opt}
	}
	wire, err := m.Pack()
	if err != nil { // a record that cannot be written, from the host's own resolver
		wire = bareReply(r.wire, headerLen)
		wire[3] = wire[3]&^0xf | dns.RcodeServerFailure
	}
	return r.fit(wire)
}

// fit shortens a response to what the client can take: whole records are left
// out and TC is set, the question and the OPT record stay.
func (r *request) fit(resp []byte) []byte {
	if len(resp) <= r.limit {
		return resp
	}
	var m dns.Msg
	if err := m.Unpack(resp); err == nil {
		m.Truncate(r.limit)
		if short, err := m.Pack(); err == nil && len(short) <= r.limit {
			return short
		}
	}
	end, _ := questionEnd(resp)
	short := bareReply(resp, max(end, headerLen))
	short[2] |= 0x02
	return short
}

// bareReply returns the first n bytes of msg, its header and perhaps its
// question, as a response without records.
func bareReply(msg []byte, n int) []byte {
	short := append([]byte(nil), msg[:n]...)
	short[2] |= 0x80
	clear(short[6:headerLen])
	if n == headerLen {
		clear(short[4:6])
	}
	return short
}
