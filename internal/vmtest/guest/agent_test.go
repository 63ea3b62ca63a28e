// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package guest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// What an agent prints.
const (
	listening  = "listening: "  // for the handshake
	configured = "configured: " // before its address, which can be used now
)

// runAgent is what this program does as an agent: it shakes hands with the host,
// carries the frames of a tap in the namespace that is its descriptor 3, and
// exits with 0 if the host ended that.
func runAgent() {
	protocol, log := discovery.RancherDesktop, slog.New(slog.NewTextHandler(os.Stdout, nil))
	g := guestswitch.Guest{
		Responder: &discovery.Responder{
			Protocol: protocol,
			Filter:   socketbridge.AllowCID(uint32(*host)),
			Timeout:  talk.Patience,
			Logger:   log,
		},
		Listen: func(context.Context) (net.Listener, error) {
			ln, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, protocol.HandshakePort, nil)
			_, _ = fmt.Fprintln(os.Stdout, listening+fmt.Sprint(err))
			return ln, err
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return vsock.DialContext(ctx, uint32(*host), protocol.DataPort, nil)
		},
		Tap: guestswitch.Tap{NetNS: "/proc/self/fd/3"},
		OnEvent: func(e guestswitch.Event) {
			if e.Kind == guestswitch.Configured {
				_, _ = fmt.Fprintln(os.Stdout, configured+e.Lease.Addr.String())
			}
		},
		Logger: log,
	}
	err := g.Run(context.Background())
	if errors.Is(err, io.EOF) {
		os.Exit(0)
	}
	_, _ = fmt.Fprintln(os.Stdout, err)
	os.Exit(1)
}

// An agent is a process that is one.
type agent struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // that it prints, until it ends
	last  string      // of them, once it has ended
}

// startAgent starts an agent that has its tap in a namespace. It is killed when
// it runs for too long.
func startAgent(t *testing.T, ns *namespace) *agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), talk.Patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-agent", fmt.Sprint("-host=", *host))
	cmd.ExtraFiles = []*os.File{ns.file}
	return start(t, cmd)
}

// start starts a process that does not outlive its context or t.
func start(t *testing.T, cmd *exec.Cmd) *agent {
	t.Helper()
	a := &agent{t: t, cmd: cmd, lines: make(chan string)}
	out, err := a.cmd.StdoutPipe()
	require.NoError(t, err)
	a.cmd.Stderr = a.cmd.Stdout
	require.NoError(t, a.cmd.Start())
	go func() {
		defer close(a.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			a.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		if a.cmd.ProcessState == nil { // t's context has ended
			_ = a.end()
		}
	})
	return a
}

// says waits until the agent prints a line that has this in it.
func (a *agent) says(words string) {
	a.t.Helper()
	for line := range a.lines {
		a.t.Log("agent:", line)
		if strings.Contains(line, words) {
			return
		}
	}
	require.Failf(a.t, "the agent has ended", "or was killed after %s, without saying %q: %v", talk.Patience, words, a.cmd.Wait())
}

// end waits for the agent's end, and says how it was.
func (a *agent) end() error {
	for a.last = range a.lines {
		a.t.Log("agent:", a.last)
	}
	return a.cmd.Wait()
}

func (a *agent) kill() {
	a.t.Helper()
	require.NoError(a.t, a.cmd.Process.Kill())
	require.EqualError(a.t, a.end(), "signal: killed")
}
