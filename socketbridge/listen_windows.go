// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"net"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

func listenPipe(path, security string) (net.Listener, error) {
	if security == "" {
		user, err := windows.GetCurrentProcessToken().GetTokenUser()
		if err != nil {
			return nil, err
		}
		security = pipeSecurity(user.User.Sid.String())
	}
	return winio.ListenPipe(path, &winio.PipeConfig{
		SecurityDescriptor: security,
		MessageMode:        true,
		InputBufferSize:    64 << 10,
		OutputBufferSize:   64 << 10,
	})
}
