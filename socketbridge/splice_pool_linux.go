// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	pipeSize   = 256 << 10 // asked for: 1 MB is no faster, and four times nearer to the user's limit
	leastPipe  = 64 << 10
	sparePipes = 8
)

// A kernelPipe is a pipe(2) between two sockets.
type kernelPipe struct{ r, w int }

func newKernelPipe() *kernelPipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil // out of descriptors
	}
	p := &kernelPipe{r: fds[0], w: fds[1]}
	size, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil { // more than this user may have
		size, err = unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || size < leastPipe {
		p.close() // so many pipes in use that new ones are tiny: a buffer is faster
		return nil
	}
	return p
}

func (p *kernelPipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// kernelPipes keeps a few empty pipes for whoever needs one next, so that a stream
// that runs dry between two bursts need hold none. It belongs to the directions that
// have used one: the last to end closes them all, and a process without relays has
// no descriptor left.
//
// It is the one thing here that changes and belongs to a package: Pipe is a function,
// with no owner to keep it, and one set for each relay would be the descriptors
// that idle ones do without. Nothing of a relay can be seen by another, as a pipe
// is put here empty.
var kernelPipes struct {
	sync.Mutex
	users int
	spare []*kernelPipe
}

// takePipe sets m.pipe, or reports that there is none to be had.
func (m *mover) takePipe() bool {
	p := &kernelPipes
	p.Lock()
	if !m.user {
		m.user = true
		p.users++
	}
	if last := len(p.spare) - 1; last >= 0 {
		m.pipe, p.spare = p.spare[last], p.spare[:last]
	}
	p.Unlock()
	if m.pipe == nil {
		m.pipe = newKernelPipe()
	}
	return m.pipe != nil
}

// putPipe gives the pipe back. One that still holds bytes is closed: they are not for
// its next user.
func (m *mover) putPipe() {
	pipe := m.pipe
	m.pipe = nil
	p := &kernelPipes
	p.Lock()
	keep := m.held == 0 && len(p.spare) < sparePipes
	if keep {
		p.spare = append(p.spare, pipe)
	}
	p.Unlock()
	if !keep {
		pipe.close()
	}
	m.held = 0
}

// leave is called when the direction has ended.
func (m *mover) leave() {
	if m.pipe != nil {
		m.putPipe()
	}
	if !m.user {
		return
	}
	m.user = false
	p := &kernelPipes
	p.Lock()
	var spare []*kernelPipe
	if p.users--; p.users == 0 {
		spare, p.spare = p.spare, nil
	}
	p.Unlock()
	for _, pipe := range spare {
		pipe.close()
	}
}
