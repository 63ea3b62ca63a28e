// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

import (
	"net"
	"net/netip"

	"github.com/containers/gvisor-tap-vsock/pkg/types"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
)

func asNameserverZones(zones []Zone) []nameserver.Zone {
	out := make([]nameserver.Zone, 0, len(zones))
	for _, z := range zones {
		nz := nameserver.Zone{Name: z.Name, DefaultIP: z.DefaultIP}
		for _, r := range z.Records {
			nz.Records = append(nz.Records, nameserver.Record{Name: r.Name, IP: r.IP, Regexp: r.Regexp})
		}
		out = append(out, nz)
	}
	return out
}

// The HTTP API speaks gvisor-tap-vsock's types.

func asWireZones(zones []nameserver.Zone) []types.Zone {
	out := make([]types.Zone, 0, len(zones))
	for _, z := range zones {
		wz := types.Zone{Name: z.Name, DefaultIP: z.DefaultIP.AsSlice()}
		for _, r := range z.Records {
			wz.Records = append(wz.Records, types.Record{Name: r.Name, IP: r.IP.AsSlice(), Regexp: r.Regexp})
		}
		out = append(out, wz)
	}
	return out
}

func fromWireZone(z types.Zone) nameserver.Zone {
	nz := nameserver.Zone{Name: z.Name, DefaultIP: fromIP(z.DefaultIP)}
	for _, r := range z.Records {
		nz.Records = append(nz.Records, nameserver.Record{Name: r.Name, IP: fromIP(r.IP), Regexp: r.Regexp})
	}
	return nz
}

func fromIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
