// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

func platformSource() source { return &adapterSource{read: readHost} }

func platformLookup() Lookup {
	api, err := loadDNSAPI()
	if err != nil {
		return libcLookup(net.DefaultResolver) // GetAddrInfoW and DnsQuery
	}
	return dnsapiLookup(api.ask)
}

func readHost() (windowsHost, error) {
	adapters, err := readAdapters()
	return windowsHost{
		adapters:     adapters,
		policySearch: registryString(registry.LOCAL_MACHINE, `SOFTWARE\Policies\Microsoft\Windows NT\DNSClient`, "SearchList"),
		globalSearch: registryString(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\Tcpip\Parameters`, "SearchList"),
		domain:       computerDomain(),
	}, err
}

// registryString returns "" for what is not there.
func registryString(root registry.Key, path, name string) string {
	key, err := registry.OpenKey(root, path, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer func() { _ = key.Close() }()
	value, _, err := key.GetStringValue(name)
	if err != nil {
		return ""
	}
	return value
}

// computerDomain returns the primary DNS suffix.
func computerDomain() string {
	buf := make([]uint16, 256) // a domain has 255 characters at most
	n := uint32(len(buf))
	if windows.GetComputerNameEx(windows.ComputerNameDnsDomain, &buf[0], &n) != nil {
		return ""
	}
	return windows.UTF16ToString(buf)
}

func readAdapters() ([]adapter, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST | windows.GAA_FLAG_SKIP_FRIENDLY_NAME
	var buf []byte
	for size := uint32(16 << 10); ; {
		buf = make([]byte, size)
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])), &size)
		if errors.Is(err, windows.ERROR_NO_DATA) {
			return nil, nil // no adapter at all
		}
		if err == nil {
			break
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) || size <= uint32(len(buf)) {
			return nil, os.NewSyscallError("GetAdaptersAddresses", err)
		}
	}
	var adapters []adapter
	for a := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])); a != nil; a = a.Next {
		ad := adapter{
			up: a.OperStatus == windows.IfOperStatusUp, loopback: a.IfType == windows.IF_TYPE_SOFTWARE_LOOPBACK,
			metric4: a.Ipv4Metric, metric6: a.Ipv6Metric,
		}
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
