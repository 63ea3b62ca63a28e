// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// KeepAlive makes the connection notice a peer that is gone without a word: after
// idle without a segment it asks every interval, and is reset after that many
// questions without an answer.
func (c *Conn) KeepAlive(idle, interval time.Duration, questions int) error {
	i, v := tcpip.KeepaliveIdleOption(idle), tcpip.KeepaliveIntervalOption(interval)
	for _, opt := range []tcpip.SettableSocketOption{&i, &v} {
		if err := c.ep.SetSockOpt(opt); err != nil {
			return fmt.Errorf("netstack: %T: %w", opt, asError(err))
		}
	}
	if err := c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, questions); err != nil {
		return fmt.Errorf("netstack: keep-alive count: %w", asError(err))
	}
	c.ep.SocketOptions().SetKeepAlive(true)
	return nil
}
