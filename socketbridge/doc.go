// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package socketbridge carries connections from a socket on one side of a VM's
// boundary to a socket on the other, and decides who may use the way: a Docker
// socket in the guest, say, for the host and for nobody else.
//
// A [Bridge] accepts connections, asks a [PeerFilter] whether to let them in, dials
// a target for each and joins the two as [Pipe] does:
//
//	b := &socketbridge.Bridge{
//		Listen: func(context.Context) (net.Listener, error) { return socketbridge.ListenVsock(6660) },
//		Filter: socketbridge.AllowCID(2), // the host
//		Dial:   socketbridge.DialUnix("/var/run/docker.sock"),
//	}
//	err := b.Run(ctx)
//
// Run returns when ctx ends, once the connections have ended or DrainTimeout has
// passed. With a listener of your own, such as one from systemd ([FileListener]),
// call [Bridge.Serve]. examples/rdd-guest and examples/docker-host are the programs
// for the two sides of a Docker socket.
//
// # Half-close
//
// When one peer stops writing, the other reads EOF, after everything that was
// sent before, and may still answer. So `echo x | docker exec -i` ends, and its
// output arrives. A connection that cannot close its writing half, such as a
// byte-mode named pipe, cannot carry this and is refused with an error.
//
// # Who may connect
//
// Whoever can open a vsock or TCP connection reaches the listener, so a Bridge
// without a Filter does not start. The filters of this package fail closed: what
// they do not know, they refuse. Behind a unix socket or a named pipe the
// permissions of its file keep strangers out, and [AllowAll] says so.
//
// # Ownership
//
// Serve and Run own the listener, each connection and each goroutine, and have
// closed and ended them all when they return. A Bridge may be run again, and more
// than once at a time.
//
// # Concurrency
//
// A filter, and the fields of a Bridge, are not to be changed once they are in use;
// all methods may then be called concurrently.
//
// # Platforms
//
// Pipe, Bridge, AllowPrefix and DialUnix work everywhere, inside the kernel on Linux.
// ListenVsock and DialVsock need Linux, ListenPipe and AllowVM Windows; AllowUID,
// [ListenUnix] and [FileConn] need Linux or macOS. Elsewhere they compile, and their
// use is an error that is [errors.ErrUnsupported].
package socketbridge
