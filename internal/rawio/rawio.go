// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package rawio moves much data between a socket or a tap and memory for less than
// net and os do.
//
// Go's scheduler is told of the beginning and the end of each of their system calls,
// lest it block. Where a process has nothing else to do for a moment, as one has all
// the time that carries a stream, that wakes the runtime's monitor, which from then
// on looks after it every 20 µs: as many context switches as the data takes, or more.
// Of a call that does not block it need not be told. (gVisor's own links do the same.)
//
// On Linux (4.3 or later) NewReader and NewWriter know *net.TCPConn, *net.UnixConn of
// streams, *vsock.Conn and, for a file that does not block and is nobody else's,
// *os.File: exactly these, for what only has a descriptor somewhere may hold bytes of
// its own. Deadlines and Close act as ever; errors are without addresses. The race
// detector sees nothing of these calls. All else, and everything on other systems, is
// used as it is.
package rawio
