// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/hostswitch"
)

// source returns where the VM is, as the command line has it.
func source(s string, log *slog.Logger) (discovery.Source, error) {
	kind, arg, _ := strings.Cut(s, ":")
	switch {
	case s == "hyperv":
		return discovery.HyperV(), nil
	case kind == "unix" && arg != "":
		return discovery.Unix(arg), nil
	case kind == "vsock" && arg != "":
		cids, err := parseCIDs(arg)
		return &discovery.CIDSource{CIDs: cids, Logger: log}, err
	}
	return nil, errors.New("write vsock:CID[,CID…], unix:DIRECTORY or hyperv")
}

func parseCIDs(s string) (cids []uint32, err error) {
	for text := range strings.SplitSeq(s, ",") {
		cid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a CID, as in vsock:3,42", text)
		}
		cids = append(cids, uint32(cid))
	}
	return cids, nil
}

// preset returns what the VM speaks, by its name on the command line.
func preset(name string) (discovery.Protocol, error) {
	switch name {
	case "rancher-desktop":
		return discovery.RancherDesktop, nil
	case "rancher-desktop-2":
		return discovery.RancherDesktop2, nil
	}
	return discovery.Protocol{}, errors.New("write rancher-desktop or rancher-desktop-2")
}

// host finds the VM for a network, and keeps it.
func host(sw *hostswitch.Switch, o options) *hostswitch.Host {
	log := o.config.Logger
	return &hostswitch.Host{
		Switch:      sw,
		Discoverer:  &discovery.Discoverer{Source: o.source, Protocol: o.protocol, Logger: log},
		ReportEvery: 5 * time.Minute,
		Logger:      log,
		OnEvent: func(e hostswitch.Event) {
			log.Info("event", "kind", e.Kind, "peer", e.Peer, "error", e.Err)
		},
	}
}
