// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"

	virtsock "github.com/linuxkit/virtsock/pkg/vsock"
	"github.com/mdlayher/vsock"
)

// anyCID is VMADDR_CID_ANY (vsock(7)).
const anyCID = 0xffffffff

// AllowCID lets in vsock peers with one of these context IDs. In a guest,
// AllowCID(2) is the host: whatever runs in the guest itself has CID 1 or the
// guest's own, and other guests do not reach it.
//
// It knows the addresses of github.com/mdlayher/vsock and of
// github.com/linuxkit/virtsock/pkg/vsock, exactly these types, and where the
// connection has a descriptor (it is a [syscall.Conn]) on Linux, the kernel has to
// name the same peer.
//
// VMADDR_CID_ANY is nobody's CID and a mistake: the filter refuses everyone, and
// [Bridge.Serve] does not start.
func AllowCID(cid ...uint32) PeerFilter {
	cid = slices.Clone(cid)
	var bad error
	if slices.Contains(cid, anyCID) {
		bad = fmt.Errorf("CID %d is nobody's: name the peer's, or take AllowAll", uint32(anyCID))
	}
	return filter{bad: bad, check: func(c net.Conn) error {
		remote, err := remoteAddr(c)
		if err != nil {
			return err
		}
		got, ok := cidOf(remote)
		if !ok {
			return fmt.Errorf("a %T is no vsock address", remote)
		}
		_, err = control(c, func(fd int) error {
			kernel, err := peerCID(fd)
			if err == nil && kernel != got {
				err = fmt.Errorf("its address says CID %d and the kernel %d", got, kernel)
			}
			return err
		})
		if err != nil {
			return err
		}
		if got == anyCID || !slices.Contains(cid, got) {
			return fmt.Errorf("its CID is %d, allowed is %d", got, cid)
		}
		return nil
	}}
}

func cidOf(addr net.Addr) (uint32, bool) {
	switch addr := addr.(type) {
	case *vsock.Addr:
		if addr != nil {
			return addr.ContextID, true
		}
	case *virtsock.Addr:
		if addr != nil {
			return addr.CID, true
		}
	case virtsock.Addr:
		return addr.CID, true
	}
	return 0, false
}

// AllowVM lets in Hyper-V socket peers from the VMs with these GUIDs, in any case,
// with or without braces. It knows the addresses of github.com/Microsoft/go-winio
// and of github.com/linuxkit/virtsock/pkg/hvsock, exactly these types.
//
// What is not the GUID of one VM (the wildcards are not) is a mistake: the filter
// refuses everyone, and [Bridge.Serve] does not start. So it is elsewhere than on
// Windows, and the error is [errors.ErrUnsupported].
func AllowVM(id ...string) PeerFilter {
	if runtime.GOOS != "windows" {
		return filter{bad: unsupported("Hyper-V sockets")}
	}
	return allowVM(parseVM, vmOf, id)
}

// allowVM is AllowVM with what Windows alone has to know. VMs are their GUIDs in
// lower case, without braces. The types for them would bring half of crypto
// into a small agent.
func allowVM(parse func(string) (string, error), vmOf func(net.Addr) (string, error), id []string) PeerFilter {
	var bad []error
	vms := make([]string, 0, len(id))
	for _, one := range id {
		vm, err := parse(one)
		if err != nil {
			bad = append(bad, fmt.Errorf("AllowVM: %w", err))
		}
		vms = append(vms, vm)
	}
	return filter{bad: errors.Join(bad...), check: func(c net.Conn) error {
		remote, err := remoteAddr(c)
		if err != nil {
			return err
		}
		got, err := vmOf(remote)
		if err == nil && !slices.Contains(vms, got) {
			err = fmt.Errorf("its VM is %s, allowed is %v", got, vms)
		}
		return err
	}}
}

// vmOfEither returns the VM of an address of go-winio, which are pointers, or of
// virtsock, which are values or pointers. Their types are known on Windows alone.
func vmOfEither[Winio, Virtsock any](addr net.Addr, winio func(Winio) string, virtsock func(Virtsock) string) (string, error) {
	switch addr := any(addr).(type) {
	case *Winio:
		if addr != nil {
			return winio(*addr), nil
		}
	case *Virtsock:
		if addr != nil {
			return virtsock(*addr), nil
		}
	case Virtsock:
		return virtsock(addr), nil
	}
	return "", fmt.Errorf("a %T is no address of a Hyper-V socket", addr)
}

// noUID is what the kernel says of a peer without credentials.
const noUID = 0xffffffff

// AllowUID lets in unix socket peers whose process ran as one of these users when
// it connected (SO_PEERCRED in unix(7), LOCAL_PEERCRED on macOS). A user of
// another user namespace that has no number in this one appears as 65534.
//
// It asks the kernel, through the connection's [syscall.Conn], and refuses one
// that has none. 4294967295 is no user and a mistake: the filter refuses everyone,
// and [Bridge.Serve] does not start. So it is elsewhere than on Linux and macOS, and
// the error is [errors.ErrUnsupported].
func AllowUID(uid ...uint32) PeerFilter {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return filter{bad: unsupported("credentials of unix peers")}
	}
	uid = slices.Clone(uid)
	var bad error
	if slices.Contains(uid, noUID) {
		bad = fmt.Errorf("UID %d is nobody's: name the user's", uint32(noUID))
	}
	return filter{bad: bad, check: func(c net.Conn) error {
		var got uint32
		has, err := control(c, func(fd int) (err error) {
			got, err = peerUID(fd)
			return err
		})
		switch {
		case err != nil:
			return err
		case !has:
			return fmt.Errorf("a %T has no descriptor to ask for credentials", c)
		case got == noUID || !slices.Contains(uid, got):
			return fmt.Errorf("its UID is %d, allowed is %d", got, uid)
		}
		return nil
	}}
}
