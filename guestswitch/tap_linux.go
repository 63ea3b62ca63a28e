// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/internal/packet"
)

const (
	// txQueueLen is how many frames the kernel keeps while the host is slow. The
	// usual 500 or 1000 drop under load.
	txQueueLen = 4000
	vlanTagLen = 4
)

// tap is the interface and what is needed to change it.
type tap struct {
	ns   *namespace
	nl   *netlink.Handle
	link *netlink.Tuntap
	file *os.File
	lo   netlink.Link // if it was brought up
	mtu  atomic.Int64
}

// newTap creates the interface and leaves it down. After an error nothing is
// left of it.
func (g *Guest) newTap(c Tap) (_ *tap, err error) {
	t := &tap{link: &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: c.Name},
		Mode:       netlink.TUNTAP_MODE_TAP,
		Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_TUN_EXCL | netlink.TUNTAP_VNET_HDR,
		NonPersist: true,
		Queues:     1, // otherwise the descriptor is closed
	}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"open the namespace of the tap", func() (err error) { t.ns, err = openNamespace(c.NetNS); return err }},
		{"create " + c.Name, func() error { return t.ns.do(t.create) }},
		{"set the MAC address of " + c.Name, func() error { return t.nl.LinkSetHardwareAddr(t.link, c.MAC) }},
		{"set the queue length of " + c.Name, func() error { return t.nl.LinkSetTxQLen(t.link, txQueueLen) }},
		{"set the MTU of " + c.Name, func() error { return t.setMTU(c.MTU) }},
		{"bring up lo", t.loUp},
	} {
		if err := g.step(s.what, s.do); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// create runs inside the namespace: both the netlink socket and the tap belong
// to the one in which they were opened.
func (t *tap) create() (err error) {
	if t.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err = t.nl.LinkAdd(t.link); err != nil {
		// The kernel says EBUSY or EINVAL, and the library only prints it.
		if t.mayNot() {
			return fmt.Errorf("%w: a tap takes CAP_NET_ADMIN: run as root", unix.EPERM)
		}
		if _, found := t.nl.LinkByName(t.link.Name); found == nil {
			return ErrTapExists
		}
		return fmt.Errorf("%w (a tap takes /dev/net/tun; modprobe tun)", err)
	}
	t.file = t.link.Fds[0] // non-blocking, so that Close ends a Read
	return t.setHeader()
}

// mayNot reports whether the kernel lets this process change no interface. It says so
// before it looks for the one to change, here one that there is not.
func (t *tap) mayNot() bool {
	nobody := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: math.MaxInt32}}
	return errors.Is(t.nl.LinkSetUp(nobody), unix.EPERM)
}

// setMTU sets it to mtu, or 1500 for 0.
func (t *tap) setMTU(mtu int) error {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	t.mtu.Store(int64(mtu))
	return t.nl.LinkSetMTU(t.link, mtu)
}

// admits reports whether a frame of the given length, or the longest of those that
// it stands for, is not too long. A script or client may have changed the MTU, so it
// is looked up before one is refused.
func (t *tap) admits(eth packet.Ethernet, length int) bool {
	n := int64(length - packet.EthernetLen)
	if eth.Type == packet.EtherVLAN {
		n -= vlanTagLen
	}
	if n <= t.mtu.Load() {
		return true
	}
	if l, err := t.nl.LinkByIndex(t.link.Index); err == nil {
		t.mtu.Store(int64(l.Attrs().MTU))
	}
	return n <= t.mtu.Load()
}

func (t *tap) up() error { return t.nl.LinkSetUp(t.link) }

func (t *tap) loUp() error {
	lo, err := t.nl.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&net.FlagUp != 0 {
		return err
	}
	t.lo = lo
	return t.nl.LinkSetUp(lo)
}

// close deletes the interface, whose addresses and routes go with it, and
// brings lo down if it was.
func (t *tap) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
	if t.lo != nil {
		_ = t.nl.LinkSetDown(t.lo)
	}
	if t.nl != nil {
		t.nl.Close()
	}
	t.ns.close()
}

// addAddr and delAddr leave other addresses alone, as addRoute and delRoute do
// other routes. Deleting what is not there is no error.
func (t *tap) addAddr(p netip.Prefix) error { return t.nl.AddrReplace(t.link, address(p)) }

func (t *tap) delAddr(p netip.Prefix) error {
	return unless(t.nl.AddrDel(t.link, address(p)), unix.EADDRNOTAVAIL, unix.ENODEV)
}

// addRoute appends: replacing would take the default route of another interface.
func (t *tap) addRoute(l Lease) error {
	return unless(t.nl.RouteAppend(t.route(l)), unix.EEXIST)
}

func (t *tap) delRoute(l Lease) error {
	return unless(t.nl.RouteDel(t.route(l)), unix.ESRCH, unix.ENODEV)
}

func (t *tap) route(l Lease) *netlink.Route {
	r := &netlink.Route{LinkIndex: t.link.Index, Gw: l.Router.AsSlice()}
	if !l.Addr.Contains(l.Router) {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	return r
}

func address(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
}

func unless(err error, expected ...error) error {
	for _, e := range expected {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
