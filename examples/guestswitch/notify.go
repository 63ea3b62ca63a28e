// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// notification is what systemd is told of a state, as sd_notify(3) has it. A unit
// of Type=notify is up when the network is: give it TimeoutStartSec=infinity if the
// host may take its time.
func notification(st lifecycle.Status) string {
	status := func(text string, err error) string {
		if err != nil {
			text += ": " + err.Error()
		}
		return service.Status(text)
	}
	switch st.State {
	case lifecycle.Starting:
		return status("waiting for the host", nil)
	case lifecycle.Ready:
		return "READY=1\n" + status("the network is up", nil)
	case lifecycle.Degraded:
		return status("degraded", st.Err)
	case lifecycle.Backoff:
		return status("trying again", st.Err)
	case lifecycle.Stopping:
		return "STOPPING=1\n" + status("stopping", nil)
	case lifecycle.Failed:
		return "STOPPING=1\n" + status("failed", st.Err)
	default:
		return ""
	}
}
