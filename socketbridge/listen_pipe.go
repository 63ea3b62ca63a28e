// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
)

// PipeOptions are for ListenPipe. The zero value is the default.
type PipeOptions struct {
	// SecurityDescriptor says in SDDL who may connect. Empty: the user that this
	// process runs as, SYSTEM and administrators, D:P(A;;GA;;;SY)(A;;GA;;;BA) and
	// the user's SID, and nobody over the network.
	SecurityDescriptor string
}

// ListenPipe listens on a named pipe, on Windows: name is \\.\pipe\docker_engine,
// or docker_engine alone.
//
// The pipe is in message mode, so that its connections have a CloseWrite, a
// message of no bytes that the client reads as EOF. Clients need not know: they
// read and write bytes.
//
// A name that is taken is an [InUseError]. It is taken while another listener has it,
// and while a connection is open that a listener had accepted, though that one be
// closed: before listening again, close the connections at both ends. Windows says the
// same of a name that this user may not create.
func ListenPipe(name string, opts PipeOptions) (net.Listener, error) {
	return listenPipeAs(userSID, listenPipe, name, opts)
}

// listenPipeAs is ListenPipe with what Windows alone can do.
func listenPipeAs(userSID func() (string, error), listen func(path, security string) (net.Listener, error), name string, opts PipeOptions) (net.Listener, error) {
	path, err := pipePath(name)
	if err != nil {
		return nil, fmt.Errorf("socketbridge: %w", err)
	}
	security, err := pipeSecurity(opts.SecurityDescriptor, userSID)
	if err != nil {
		return nil, fmt.Errorf("socketbridge: listen on %s: who this process runs as: %w", path, err)
	}
	ln, err := listen(path, security)
	if err != nil {
		return nil, pipeError(path, err)
	}
	return ln, nil
}

const pipeDir = `\\.\pipe\`

// pipePath returns the full name of a pipe. What stands after pipeDir is a name,
// not a path, but may have backslashes in it.
func pipePath(name string) (string, error) {
	bare := strings.ReplaceAll(name, "/", `\`) // npipe:////./pipe/name is common
	if len(bare) >= len(pipeDir) && strings.EqualFold(bare[:len(pipeDir)], pipeDir) {
		bare = bare[len(pipeDir):]
	}
	switch {
	case bare == "":
		return "", fmt.Errorf("%q names no pipe: write it as %sdocker_engine", name, pipeDir)
	case strings.HasPrefix(bare, `\`) || strings.Contains(bare, ":"):
		return "", fmt.Errorf("%q is not a pipe of this machine: write it as %sdocker_engine", name, pipeDir)
	case strings.ContainsRune(bare, 0):
		return "", fmt.Errorf("the name of the pipe, %q, has a zero byte in it", name)
	case len(pipeDir+bare) > 256: // CreateNamedPipe
		return "", fmt.Errorf("the name of the pipe has %d characters, more than 256: use a shorter one", len(pipeDir+bare))
	}
	return pipeDir + bare, nil
}

// pipeSecurity returns the descriptor that was given, or else the default one. That
// names the user and not OW, the owner: of what an elevated process makes, the owner
// is the group of administrators, to which the same user's other programs do not belong.
func pipeSecurity(given string, userSID func() (string, error)) (string, error) {
	if given != "" {
		return given, nil
	}
	sid, err := userSID()
	return "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + sid + ")", err
}

// pipeTaken is what creating the first instance of a pipe says when there is one:
// ERROR_ACCESS_DENIED (CreateNamedPipe, FILE_FLAG_FIRST_PIPE_INSTANCE), or, of a
// pipe that was made with a bound on instances, ERROR_PIPE_BUSY; and
// ERROR_ALREADY_EXISTS, which is how the kernel's name collision is translated.
var pipeTaken = []syscall.Errno{5, 231, 183}

// pipeError says what an error of listening means.
func pipeError(path string, err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && slices.Contains(pipeTaken, errno) {
		err = fmt.Errorf("%w (connections that are still open hold the name, too)", err)
		return &InUseError{Network: "pipe", Address: path, Err: err}
	}
	return fmt.Errorf("socketbridge: listen on %s: %w", path, err)
}
