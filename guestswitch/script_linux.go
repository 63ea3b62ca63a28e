// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// scriptTimeout bounds one call of a script.
const scriptTimeout = 10 * time.Second

// script returns the action that calls the program at path as udhcpc does.
func (s *session) script(path string) action {
	return func(ctx context.Context, name string, g *grant) error {
		ctx, cancel := context.WithTimeout(ctx, scriptTimeout)
		defer cancel()
		env := []string{"interface=" + s.tap.link.Name}
		if g != nil {
			env = append(env, scriptEnv(g.ack)...)
		}
		err := s.process(ctx, []string{path, name}, env)
		var exit *exec.ExitError
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("%s %s was killed after %v", path, name, scriptTimeout)
		case ctx.Err() == nil && errors.As(err, &exit):
			s.warn("the script failed, which is not looked at", err)
			return nil
		}
		return err
	}
}

// kind is how an option is printed.
type kind int

const (
	hexBytes kind = iota
	address4      // dotted, with spaces between
	number        // of 1, 2 or 4 bytes
	text
	domains
	routes
	pairs // of addresses
)

// scriptNames are busybox's (networking/udhcp/common.c, dhcp_optflags); the time
// zone is as unsigned as it is there on 64 bits.
var scriptNames = [256]struct {
	name string
	kind kind
}{
	1: {"subnet", address4}, 2: {"timezone", number}, 3: {"router", address4}, 6: {"dns", address4},
	9: {"lprsrv", address4}, 12: {"hostname", text}, 13: {"bootsize", number}, 15: {"domain", text},
	16: {"swapsrv", address4}, 17: {"rootpath", text}, 23: {"ipttl", number}, 26: {"mtu", number},
	28: {"broadcast", address4}, 33: {"routes", pairs}, 40: {"nisdomain", text}, 41: {"nissrv", address4},
	42: {"ntpsrv", address4}, 44: {"wins", address4}, 51: {"lease", number}, 54: {"serverid", address4},
	56: {"message", text}, 66: {"tftp", text}, 67: {"bootfile", text}, 119: {"search", domains},
	121: {"staticroutes", routes}, 132: {"vlanid", number}, 133: {"vlanpriority", number}, 209: {"pxeconffile", text}, 210: {"pxepathprefix", text},
	211: {"reboottime", number}, 249: {"msstaticroutes", routes}, 252: {"wpad", text},
}

// scriptEnv is what udhcpc puts into the environment for an answer.
func scriptEnv(m *dhcpv4.DHCPv4) []string {
	var env []string
	for _, f := range []struct {
		name string
		ip   []byte
	}{{"ip", m.YourIPAddr}, {"giaddr", m.GatewayIPAddr}, {"siaddr", m.ServerIPAddr}} {
		if a, ok := ipv4(f.ip); ok {
			env = append(env, f.name+"="+a.String())
		}
	}
	env = append(env, printed("boot_file", m.BootFileName), printed("sname", m.ServerHostName))
	for code, b := range m.Options {
		env = append(env, scriptOption(code, b))
	}
	if mask := m.SubnetMask(); mask != nil {
		bits, _ := mask.Size()
		env = append(env, fmt.Sprintf("mask=%d", bits))
	}
	env = slices.DeleteFunc(env, func(v string) bool { return v == "" })
	slices.Sort(env)
	return env
}

// scriptOption returns "" for what is no value of the option's kind.
func scriptOption(code uint8, b []byte) string {
	o := scriptNames[code]
	if len(b) == 0 {
		return ""
	}
	if o.name == "" {
		o.name = fmt.Sprintf("opt%d", code)
	}
	var list []string
	switch o.kind {
	case hexBytes:
		return fmt.Sprintf("%s=%x", o.name, b)
	case text:
		return printed(o.name, string(b))
	case number:
		var n uint32
		switch len(b) {
		case 1:
			n = uint32(b[0])
		case 2:
			n = uint32(binary.BigEndian.Uint16(b))
		case 4:
			n = binary.BigEndian.Uint32(b)
		default:
			return ""
		}
		list = []string{fmt.Sprint(n)}
	case address4, pairs:
		size := 4
		if o.kind == pairs {
			size = 8
		}
		for ; len(b) >= size; b = b[size:] {
			a := netip.AddrFrom4([4]byte(b)).String()
			if o.kind == pairs {
				a += "/" + netip.AddrFrom4([4]byte(b[4:])).String()
			}
			list = append(list, a)
		}
	case domains:
		labels := dhcpv4.Options{dhcpv4.OptionDNSDomainSearchList.Code(): b}
		if l := (&dhcpv4.DHCPv4{Options: labels}).DomainSearch(); l != nil {
			list = l.Labels
		}
	case routes:
		var rs dhcpv4.Routes
		if rs.FromBytes(b) == nil {
			for _, r := range rs {
				list = append(list, r.Dest.String(), r.Router.String())
			}
		}
	}
	if len(list) == 0 {
		return ""
	}
	return printed(o.name, strings.Join(list, " "))
}

// printed returns name=value. A value that does not print becomes "bad", as in
// udhcpc: it came from the network, and goes to a shell.
func printed(name, value string) string {
	value = strings.TrimRight(value, "\x00")
	if value == "" {
		return ""
	}
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			value = "bad"
			break
		}
	}
	return name + "=" + value
}
