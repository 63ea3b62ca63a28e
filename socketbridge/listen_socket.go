// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"io/fs"
	"net"
)

// UnixOptions are for ListenUnix. The zero value is the default.
type UnixOptions struct {
	// Mode is the permissions of the socket; whoever may write may connect. 0:
	// 0600, this user only. It does not go through the umask.
	Mode fs.FileMode
}

// ListenUnix listens on a unix socket, on Linux and macOS, and looks after its
// file:
//
//   - A socket that nobody listens on any more is replaced. One that is in use is an
//     [InUseError], as is one that another call of ListenUnix is about to make.
//     Anything else at path is left alone and an error.
//   - The permissions are there before anybody can connect.
//   - Close removes the file, unless another one has taken its place.
//
// Connections are *net.UnixConn. While it works ListenUnix locks a file beside the
// socket, named path.lock, and removes it again; a file of that name that is not empty,
// or another user's, is left alone and an error. On Windows use [ListenPipe].
func ListenUnix(path string, opts UnixOptions) (net.Listener, error) {
	if opts.Mode == 0 {
		opts.Mode = 0o600
	}
	return listenUnix(path, opts.Mode.Perm())
}
