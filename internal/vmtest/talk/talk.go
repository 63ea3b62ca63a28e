// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package talk is what the two ends of the tests in machines say to each other.
package talk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Ports where the ends listen, and the address that the guest has to get.
const (
	HostPort    = 6661           // vsock, host
	GuestPort   = 6664           // vsock, guest
	DockerPort  = 6660           // vsock, guest: HTTP
	BeginPort   = 6662           // vsock, host: asked when the guest waits for its network
	EndPort     = 6663           // vsock, host: asked when the guest has no more use for it
	NobodysPort = 7777           // vsock: where nobody listens
	Outward     = ":71"          // TCP, the host's loopback
	Inward      = ":72"          // TCP, the guest
	Exposed     = "127.0.0.1:73" // TCP, on the host for Inward
	GuestAddr   = "192.168.127.2/24"
)

// Kills is how often the guest's agent is killed.
const Kills = 5

// Patience only keeps what hangs from hanging for ever. An emulated machine in an
// emulated machine is slow.
const Patience = 4 * time.Minute

// Sizes of questions, in bytes: Long is more than the buffers of a vsock hold.
const (
	Short = 64 << 10
	Long  = 600 << 10
)

// Ask sends a question, stops writing, and reads the answer to it.
func Ask(conn net.Conn, size int) error {
	question := bytes.Repeat([]byte("guestnet"), size/8)
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if _, err := conn.Write(question); err != nil {
		return err
	}
	if err := closeWrite(conn); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if want := sha256.Sum256(question); err == nil && !bytes.Equal(answer, want[:]) {
		err = fmt.Errorf("talk: wrong answer %x", answer)
	}
	return err
}

// Answer reads a question to its end, answers it and stops writing.
func Answer(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, conn); err != nil {
		return err
	}
	if _, err := conn.Write(hash.Sum(nil)); err != nil {
		return err
	}
	return closeWrite(conn)
}

// A Stream is a connection of which something has been read ahead.
type Stream struct {
	net.Conn
	Ahead io.Reader
}

// Read reads what was read ahead, and then what comes.
func (s Stream) Read(p []byte) (int, error) { return s.Ahead.Read(p) }

// CloseWrite ends the writing alone.
func (s Stream) CloseWrite() error { return closeWrite(s.Conn) }

func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("talk: the connection cannot stop writing")
	}
	return half.CloseWrite()
}
