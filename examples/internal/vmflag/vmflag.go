// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package vmflag is how the command lines of examples/ say which VM is meant, and what
// it speaks.
package vmflag

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
)

// Protocol adds to flags -protocol, which is for another one; it sets p, and that to
// its default.
func Protocol(flags *flag.FlagSet, p *discovery.Protocol, other string) {
	*p = discovery.RancherDesktop
	flags.Func("protocol", "`what` is said in the handshake, with -"+other+": rancher-desktop or rancher-desktop-2 (default rancher-desktop)", func(s string) error {
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

// Source returns the VMs among which ours is, as -discover of a system has them.
func Source(system, s string, log *slog.Logger) (discovery.Source, error) {
	kind, arg := service.Address(s)
	if err := Supported(system, kind); err != nil {
		return nil, err
	}
	switch {
	case s == "hyperv":
		return discovery.HyperV(), nil
	case kind == "unix" && arg != "":
		dir := discovery.Unix(arg)
		_, err := dir.Peers(context.Background()) // a file is none
		return dir, err
	case kind == "vsock" && arg != "":
		cids, err := CIDs(arg)
		return &discovery.CIDSource{CIDs: cids, Logger: log}, err
	}
	return nil, errors.New("write " + SourceForms)
}

// Missing says why there cannot be a VM yet where -discover looks for it.
func Missing(discover string) error {
	if kind, dir := service.Address(discover); kind == "unix" {
		_, err := os.Stat(dir)
		return err
	}
	return nil
}

// Supported says that a system has no VMs of a kind, and which it has.
func Supported(system, kind string) error {
	if needs := map[string]string{"vsock": "linux", "hyperv": "windows"}[kind]; needs == "" || needs == system {
		return nil
	}
	instead := map[string]string{"linux": "vsock:CID or ", "windows": "hyperv or "}[system]
	return fmt.Errorf("%s on %s: %w: use %sunix:DIRECTORY", kind, system, errors.ErrUnsupported, instead)
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
	_, err = discovery.CIDs(uint32(cid)).Peers(context.Background())
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil // that is another question
	}
	return uint32(cid), err
}
