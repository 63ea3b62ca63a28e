// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"

	"github.com/mdlayher/vsock"
)

// A CIDSource is what [CIDs] returns, for who wants it to log. Its fields are not
// to be changed once it is in use, and it is not to be copied.
type CIDSource struct {
	CIDs   []uint32
	Logger *slog.Logger // is told of strangers, at most one line in 10 s for each port; nil: silent

	hub cidHub
}

// CIDs are the QEMU guests with these vsock context IDs, on their Linux host. A
// host cannot list its guests, so all of them are peers, whether they run or not.
//
// The kernel has one listener for a port, not one for each guest, so the peers of
// one Source share it: a connection goes to the peer whose CID it comes from,
// and that of a stranger is closed. Take the peers for one port from one Source.
//
// CIDs of guests begin with 3; 1 is this machine itself, as its own guest, for
// tests. The others mean something else and are refused.
func CIDs(cid ...uint32) Source { return &CIDSource{CIDs: cid} }

// CIDPeer is the guest with one context ID. Two such peers cannot listen on one
// port at a time; those of [CIDs] can.
func CIDPeer(cid uint32) (Peer, error) {
	peers, err := (&CIDSource{CIDs: []uint32{cid}}).Peers(context.Background())
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	return peers[0], nil
}

// Peers returns the guests.
func (s *CIDSource) Peers(context.Context) ([]Peer, error) {
	if runtime.GOOS != "linux" {
		return nil, unsupportedForGood(fmt.Errorf("vsock on %s: %w", runtime.GOOS, errors.ErrUnsupported))
	}
	peers := make([]Peer, len(s.CIDs))
	for i, cid := range s.CIDs {
		if cid == 0 || cid == vsock.Host || cid == anyCID {
			return nil, permanentError{fmt.Errorf("CID %d is not that of a guest: use the guest-cid of its vhost-vsock device, 3 or more", cid)}
		}
		peers[i] = &cidPeer{cid, s}
	}
	return peers, nil
}

// anyCID is VMADDR_CID_ANY (vsock(7)).
const anyCID = 0xffffffff

type cidPeer struct {
	cid    uint32
	source *CIDSource
}

func (p *cidPeer) ID() string { return strconv.FormatUint(uint64(p.cid), 10) }

func (p *cidPeer) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := vsock.DialContext(ctx, p.cid, port, nil)
	if err != nil {
		return nil, err // not a nil *vsock.Conn in an interface
	}
	return conn, nil
}

func (p *cidPeer) Listen(port uint32) (net.Listener, error) {
	return p.source.hub.listen(p.cid, port, listenVsock, logger(p.source.Logger))
}

func listenVsock(port uint32) (net.Listener, error) {
	ln, err := vsock.ListenContextID(anyCID, port, nil)
	if err != nil {
		return nil, err
	}
	return ln, nil
}
