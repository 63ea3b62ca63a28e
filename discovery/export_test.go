// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package discovery

import "net"

// ListenAs is the Listen of a peer of s over a vsock listener that the test makes:
// few machines have the real one.
func (s *CIDSource) ListenAs(cid, port uint32, open func(port uint32) (net.Listener, error)) (net.Listener, error) {
	return s.hub.listen(cid, port, open, logger(s.Logger))
}
