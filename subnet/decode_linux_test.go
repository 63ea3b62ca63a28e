// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// message is a netlink message of the machine's byte order, see netlink(7).
func message(kind uint16, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, syscall.NLMSG_HDRLEN-len(b))...)
	b = append(b, body...)
	return append(b, make([]byte, -len(b)&3)...)
}

func rtmsg(family, bits byte, attrs ...byte) []byte {
	return append([]byte{family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, attrs...)
}

func attr(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, value...), make([]byte, -len(value)&3)...)
}

func TestDecodeRoutes(t *testing.T) {
	dst := attr(syscall.RTA_DST, 10, 1, 0, 0)
	for name, c := range map[string]struct {
		rib  []byte
		want string // "": an error
	}{
		"route":       {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, dst...)...), "10.1.0.0/16"},
		"more before": {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, append(attr(syscall.RTA_TABLE, 1, 0, 0, 0), dst...)...)...), "10.1.0.0/16"},
		"default":     {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 0)...), "0.0.0.0/0"},
		"IPv6":        {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET6, 64, attr(syscall.RTA_DST, make([]byte, 16)...)...)...), "none"},
		"other kind":  {message(syscall.RTM_NEWADDR, 1), "none"},
		"empty":       {nil, "none"},
		"no rtmsg":    {message(syscall.RTM_NEWROUTE, syscall.AF_INET, 16), ""},
		"bad length":  {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 33, dst...)...), ""},
		"bad address": {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, attr(syscall.RTA_DST, 10, 1)...)...), ""},
		"long attr":   {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, binary.NativeEndian.AppendUint32(nil, 0x00010001*200)...)...), ""},
		"zero attr":   {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, 0, 0, 0, 0)...), ""},
		"no padding":  {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 0, attr(syscall.RTA_PRIORITY, 1, 2, 3)[:7]...)...), "0.0.0.0/0"},
		"cut short":   {message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, dst...)...)[:30], ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeRoutes(c.rib)
			switch c.want {
			case "":
				require.Error(t, err)
			case "none":
				require.NoError(t, err)
				require.Empty(t, got)
			default:
				require.NoError(t, err)
				require.Equal(t, []netip.Prefix{netip.MustParsePrefix(c.want)}, got)
			}
		})
	}
}

func FuzzDecodeRoutes(f *testing.F) {
	f.Add(message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 16, attr(syscall.RTA_DST, 10, 1, 0, 0)...)...))
	f.Add(message(syscall.RTM_NEWROUTE, syscall.AF_INET))
	f.Add(message(syscall.RTM_NEWROUTE, rtmsg(syscall.AF_INET, 0, attr(syscall.RTA_PRIORITY, 1, 2, 3)[:7]...)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, rib []byte) {
		all, _ := decodeRoutes(rib)
		for _, p := range all {
			require.True(t, p.IsValid() && p.Addr().Is4(), p)
			require.Equal(t, p.Masked(), p)
		}
	})
}
