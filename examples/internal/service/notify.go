// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

// Notify tells the service manager something, such as READY=1, if this is a
// service that has one: sd_notify(3). A message of several lines makes several
// assignments.
func Notify(ctx context.Context, message string) error {
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

// Status is the assignment that says how the service fares, on one line whatever
// the text.
func Status(text string) string {
	return "STATUS=" + strings.ReplaceAll(text, "\n", "; ")
}
