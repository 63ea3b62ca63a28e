// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/windows"
)

func platformSource() source { return &adapterSource{read: readAdapters} }

// platformLookup returns the resolver that honours hosts file and NRPT: package
// net asks GetAddrInfoW and DnsQuery on Windows.
func platformLookup() (res *net.Resolver, types []uint16, hostsOnly bool) {
	return net.DefaultResolver, []uint16{
		dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeMX, dns.TypeNS, dns.TypeSRV, dns.TypeTXT,
	}, false
}

func readAdapters() ([]adapter, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST | windows.GAA_FLAG_SKIP_FRIENDLY_NAME
	var buf []byte
	for size := uint32(16 << 10); ; {
		buf = make([]byte, size)
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])), &size)
		if err == nil {
			break
		}
		if err != windows.ERROR_BUFFER_OVERFLOW || size <= uint32(len(buf)) { //nolint:errorlint // a bare Errno
			return nil, os.NewSyscallError("GetAdaptersAddresses", err)
		}
	}
	var adapters []adapter
	for a := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])); a != nil; a = a.Next {
		ad := adapter{up: a.OperStatus == windows.IfOperStatusUp, metric4: a.Ipv4Metric, metric6: a.Ipv6Metric}
		if a.DnsSuffix != nil {
			ad.suffixes = append(ad.suffixes, windows.UTF16PtrToString(a.DnsSuffix))
		}
		for s := a.FirstDnsSuffix; s != nil; s = s.Next {
			ad.suffixes = append(ad.suffixes, windows.UTF16ToString(s.String[:]))
		}
		for d := a.FirstDnsServerAddress; d != nil; d = d.Next {
			if addr := sockaddrAddr(d.Address); addr.IsValid() {
				ad.servers = append(ad.servers, addr)
			}
		}
		adapters = append(adapters, ad)
	}
	return adapters, nil
}

func sockaddrAddr(sa windows.SocketAddress) netip.Addr {
	if sa.Sockaddr == nil {
		return netip.Addr{}
	}
	decoded, err := sa.Sockaddr.Sockaddr()
	if err != nil {
		return netip.Addr{}
	}
	switch d := decoded.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(d.Addr)
	case *syscall.SockaddrInet6:
		addr := netip.AddrFrom16(d.Addr)
		if d.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(d.ZoneId), 10))
		}
		return addr
	}
	return netip.Addr{}
}
