// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func peerCID(fd int) (uint32, error) {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return 0, os.NewSyscallError("getpeername", err)
	}
	vm, ok := peer.(*unix.SockaddrVM)
	if !ok {
		return 0, fmt.Errorf("the kernel knows it as %T, not as vsock", peer)
	}
	return vm.CID, nil
}

func peerUID(fd int) (uint32, error) {
	if err := unixSocket(fd); err != nil {
		return 0, err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return cred.Uid, nil
}
