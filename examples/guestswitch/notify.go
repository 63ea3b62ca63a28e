// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/rancher-sandbox/guestnet/lifecycle"
)

// notification is what systemd is told of a state, as sd_notify(3) has it. A unit
// of Type=notify is up when the network is: give it TimeoutStartSec=infinity if the
// host may take its time.
func notification(st lifecycle.Status) string {
	status := func(text string, err error) string {
		if err != nil {
			text += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		return "STATUS=" + text
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

// notify sends to the service manager, if this is a service that has one.
func notify(ctx context.Context, message string) error {
	socket := os.Getenv("NOTIFY_SOCKET") // a path, or "@" and the name of an abstract socket
	if socket == "" || message == "" {
		return nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer c.Close() //nolint:errcheck // it was sent
	if _, err := c.Write([]byte(message)); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
