// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package socketbridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if path == "" || strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("socketbridge: %q is no path: a unix socket without a file has no permissions either", path)
	}
	unlock, err := lockPath(path + ".lock")
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, &InUseError{Network: "unix", Address: path, Err: unix.EADDRINUSE}
	case errors.Is(err, fs.ErrNotExist): // the lock is made, so it is not what is missing
		return nil, fmt.Errorf("socketbridge: listen on unix %s: create the directory %s first: %w", path, filepath.Dir(path), fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("socketbridge: listen on unix %s: choose a directory that this user may write to: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("socketbridge: listen on unix %s: %w", path, err)
	}
	defer unlock()
	if err := makeWay(path); err != nil {
		return nil, err
	}
	ln, err := bindUnix(path, mode)
	if errors.Is(err, unix.EADDRINUSE) { // by someone who does not lock
		return nil, &InUseError{Network: "unix", Address: path, Err: err}
	} else if err != nil {
		return nil, fmt.Errorf("socketbridge: listen on unix %s: %w", path, err)
	}
	return ln, nil
}

// makeWay removes the socket at path if nobody listens on it.
func makeWay(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socketbridge: listen on unix %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("socketbridge: %s is there already and is no socket (%v): move it away or use another path", path, info.Mode())
	}
	// A datagram socket cannot connect to a stream socket. So who listens does not
	// notice, and whoever only refuses a connection has no listener.
	conn, err := new(net.Dialer).DialContext(context.Background(), "unixgram", path)
	if err == nil {
		_ = conn.Close()
		err = errors.New("it is a datagram socket")
	}
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		err = os.Remove(path)
	case errors.Is(err, unix.EPROTOTYPE): // the answer of who listens
		return &InUseError{Network: "unix", Address: path, Err: unix.EADDRINUSE}
	case !errors.Is(err, fs.ErrNotExist): // not gone in the meantime
		return &InUseError{Network: "unix", Address: path, Err: err}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socketbridge: remove the socket that nobody listens on: %w", err)
	}
	return nil
}

// bindUnix sets the permissions between bind and listen, when nobody can connect
// yet. The net package has no moment for that.
func bindUnix(path string, mode fs.FileMode) (ln *unixListener, err error) {
	syscall.ForkLock.RLock() // not every system can open a socket that no child inherits
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // FileListener makes a copy
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	ln = &unixListener{path: path}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if ln.made, err = os.Lstat(path); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	ln.Listener, err = net.FileListener(f)
	return ln, err
}

// unixListener removes its socket when it is closed, if it is still there.
type unixListener struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
}

func (l *unixListener) Close() error {
	var removed error
	l.once.Do(func() {
		// Before closing: until then nobody takes the socket for one that nobody
		// listens on, and puts another in its place.
		if isAt(l.path, l.made) {
			removed = os.Remove(l.path)
		}
	})
	return errors.Join(removed, l.Listener.Close())
}

// lockPath holds the file at path, which it makes, until unlock removes it. A lock
// that another holds is EWOULDBLOCK. It ends with the process, so it is never in
// the way of the next. A file that is not such a lock is left alone and an error.
func lockPath(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("its lock: %w", err)
		}
		mine, err := f.Stat()
		if err == nil {
			err = checkLock(path, mine)
		}
		if err == nil {
			err = os.NewSyscallError("flock", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		// The one before may have removed the file between our opening and locking
		// it; then what is locked is no longer what others find.
		if isAt(path, mine) {
			return func() {
				if isAt(path, mine) {
					_ = os.Remove(path)
				}
				_ = f.Close()
			}, nil
		}
		_ = f.Close()
	}
}

// checkLock returns an error unless a file may be what lockPath has made.
func checkLock(path string, info fs.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(owner.Uid) == os.Geteuid() && info.Mode().IsRegular() && info.Size() == 0 {
		return nil
	}
	return fmt.Errorf("%s is no lock, which is an empty file of this user (it is %v, %d bytes): move it away or use another path for the socket",
		path, info.Mode(), info.Size())
}

// isAt reports whether a file is what is found at path.
func isAt(path string, info fs.FileInfo) bool {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(info, now)
}
