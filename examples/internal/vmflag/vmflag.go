// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package vmflag is how the command lines of examples/ say which VM is meant, and what
// it speaks.
package vmflag

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
)

// Protocol adds to flags -protocol, the name of what; it sets p, and that to its
// default.
func Protocol(flags *flag.FlagSet, p *discovery.Protocol, what string) {
	*p = discovery.RancherDesktop
	flags.Func("protocol", "`name` of "+what+": rancher-desktop or rancher-desktop-2 (default rancher-desktop)", func(s string) error {
		switch s {
		case "rancher-desktop":
			*p = discovery.RancherDesktop
		case "rancher-desktop-2":
			*p = discovery.RancherDesktop2
		default:
			return errors.New("write rancher-desktop or rancher-desktop-2")
		}
		return nil
	})
}

// SourceForms is what [Source] reads.
const SourceForms = "vsock:CID[,CID…], unix:DIRECTORY (with 6669.sock in it) or hyperv"

// Source returns the VMs among which ours is, as -discover has them.
func Source(s string, log *slog.Logger) (discovery.Source, error) {
	kind, arg := service.Address(s)
	switch {
	case s == "hyperv":
		return discovery.HyperV(), nil
	case kind == "unix" && arg != "":
		return discovery.Unix(arg), nil
	case kind == "vsock" && arg != "":
		cids, err := CIDs(arg)
		return &discovery.CIDSource{CIDs: cids, Logger: log}, err
	}
	return nil, errors.New("write " + SourceForms)
}

// CIDs reads those of one or more VMs, with commas between them.
func CIDs(s string) (cids []uint32, err error) {
	for text := range strings.SplitSeq(s, ",") {
		cid, err := CID(text)
		if err != nil {
			return nil, err
		}
		cids = append(cids, cid)
	}
	return cids, nil
}

// CID reads that of a VM.
func CID(s string) (uint32, error) {
	cid, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a CID, as in vsock:42", s)
	}
	return uint32(cid), nil
}
