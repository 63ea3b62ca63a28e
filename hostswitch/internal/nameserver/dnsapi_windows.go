// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"math"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/windows"
)

// dnsapi holds the addresses of DnsQueryEx, DnsCancelQuery and DnsRecordListFree.
type dnsapi struct{ query, cancel, free uintptr }

// loadDNSAPI fails where a query cannot be interrupted, as under wine.
func loadDNSAPI() (api dnsapi, err error) {
	dll := windows.NewLazySystemDLL("dnsapi.dll")
	for name, addr := range map[string]*uintptr{"DnsQueryEx": &api.query, "DnsCancelQuery": &api.cancel, "DnsRecordListFree": &api.free} {
		proc := dll.NewProc(name)
		if err := proc.Find(); err != nil {
			return dnsapi{}, err
		}
		*addr = proc.Addr()
	}
	return api, nil
}

// dnsQueryRequest is DNS_QUERY_REQUEST, dnsQueryResult is DNS_QUERY_RESULT and
// dnsQueryCancel is DNS_QUERY_CANCEL (windns.h).
type (
	dnsQueryRequest struct {
		version  uint32
		name     *uint16
		qtype    uint16
		_        [3]uint16 // options lies at a multiple of 8, on 32 bits too
		options  uint64
		servers  uintptr
		ifIndex  uint32
		complete uintptr
		context  *dnsPending
	}
	dnsQueryResult struct {
		version  uint32
		status   int32
		options  uint64
		records  *windows.DNSRecord
		reserved uintptr
	}
	dnsQueryCancel struct{ _ [32]byte }
)

const treatAsFQDN = 0x1000 // DNS_QUERY_TREAT_AS_FQDN: no search list

// A dnsPending is a query that Windows holds pointers to, until it calls dnsComplete.
type dnsPending struct {
	request dnsQueryRequest
	result  dnsQueryResult
	cancel  dnsQueryCancel
	done    chan struct{}
}

// dnsComplete is a DNS_QUERY_COMPLETION_ROUTINE. Callbacks are never freed, so that
// there is one for the whole process.
var dnsComplete = windows.NewCallback(func(p *dnsPending, _ *dnsQueryResult) uintptr {
	close(p.done)
	return 0
})

// ask is a dnsQuery. When it returns Windows has nothing of it any more: what ctx
// ends is cancelled and waited for.
func (d dnsapi) ask(ctx context.Context, name string, qtype uint16) ([]dns.RR, uint32) {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, statusInvalidName
	}
	p := &dnsPending{done: make(chan struct{})}
	p.request = dnsQueryRequest{version: 1, name: wide, qtype: qtype, options: treatAsFQDN, complete: dnsComplete, context: p}
	p.result.version = 1
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(p)
	pin.Pin(wide)

	r, _, _ := syscall.SyscallN(d.query, uintptr(unsafe.Pointer(&p.request)), uintptr(unsafe.Pointer(&p.result)), uintptr(unsafe.Pointer(&p.cancel)))
	status := uint32(r)
	if status == statusPending {
		select {
		case <-p.done:
		case <-ctx.Done():
			_, _, _ = syscall.SyscallN(d.cancel, uintptr(unsafe.Pointer(&p.cancel)))
			<-p.done // a cancelled query completes too; if it had, DnsCancelQuery did nothing
		}
		status = uint32(p.result.status)
	}
	if p.result.records == nil {
		return nil, status
	}
	defer func() {
		_, _, _ = syscall.SyscallN(d.free, uintptr(unsafe.Pointer(p.result.records)), dnsFreeRecordList)
	}()
	return dnsRecords(p.result.records), status
}

const dnsFreeRecordList = 1 // DnsFreeRecordList

// dnsRecords translates a list of DNS_RECORD. Those of the authority and additional
// sections are no answer; what Windows knows without DNS comes as a question.
func dnsRecords(list *windows.DNSRecord) (rrs []dns.RR) {
	for r := list; r != nil; r = r.Next {
		if section := r.Dw & 3; section != windows.DnsSectionAnswer && section != windows.DnsSectionQuestion {
			continue
		}
		if rr := dnsRecord(r); rr != nil {
			rrs = append(rrs, rr)
		}
	}
	return rrs
}

// soaData is DNS_SOA_DATA.
type soaData struct {
	primary, admin                          *uint16
	serial, refresh, retry, expire, minimum uint32
}

func dnsRecord(r *windows.DNSRecord) dns.RR {
	hdr := dns.RR_Header{Name: wideName(r.Name), Rrtype: r.Type, Class: dns.ClassINET, Ttl: min(r.Ttl, math.MaxInt32)}
	data := unsafe.Pointer(&r.Data)
	switch r.Type {
	case dns.TypeA:
		return &dns.A{Hdr: hdr, A: net.IP(append([]byte(nil), r.Data[:4]...))}
	case dns.TypeAAAA:
		return &dns.AAAA{Hdr: hdr, AAAA: net.IP(append([]byte(nil), r.Data[:16]...))}
	case dns.TypeCNAME:
		return &dns.CNAME{Hdr: hdr, Target: wideName((*windows.DNSPTRData)(data).Host)}
	case dns.TypeNS:
		return &dns.NS{Hdr: hdr, Ns: wideName((*windows.DNSPTRData)(data).Host)}
	case dns.TypePTR:
		return &dns.PTR{Hdr: hdr, Ptr: wideName((*windows.DNSPTRData)(data).Host)}
	case dns.TypeMX:
		d := (*windows.DNSMXData)(data)
		return &dns.MX{Hdr: hdr, Preference: d.Preference, Mx: wideName(d.NameExchange)}
	case dns.TypeSRV:
		d := (*windows.DNSSRVData)(data)
		return &dns.SRV{Hdr: hdr, Priority: d.Priority, Weight: d.Weight, Port: d.Port, Target: wideName(d.Target)}
	case dns.TypeSOA:
		d := (*soaData)(data)
		return &dns.SOA{
			Hdr: hdr, Ns: wideName(d.primary), Mbox: wideName(d.admin),
			Serial: d.serial, Refresh: d.refresh, Retry: d.retry, Expire: d.expire, Minttl: d.minimum,
		}
	case dns.TypeTXT:
		d := (*windows.DNSTXTData)(data)
		txt := &dns.TXT{Hdr: hdr}
		for _, s := range unsafe.Slice(&d.StringArray[0], d.StringCount) {
			txt.Txt = append(txt.Txt, txtStrings(windows.UTF16PtrToString(s))...)
		}
		return txt
	}
	return nil
}

func wideName(p *uint16) string { return escapeName(windows.UTF16PtrToString(p)) }
