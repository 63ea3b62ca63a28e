// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

const (
	image    = "busybox:1"
	patience = process.Patience
	tick     = process.Tick
)

// A lab is a Docker daemon, and what leads to it.
type lab struct {
	dir    string // of the programs that are tested
	daemon *daemon
}

func newLab(t *testing.T) *lab {
	t.Helper()
	needs(t)
	l := &lab{dir: t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", l.dir, "../../examples/rdd-guest", "../../examples/docker-host")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	l.daemon = newDaemon(t)
	l.daemon.importImage(image)
	return l
}

// A bridge is the way from a client to the daemon, through both programs.
type bridge struct {
	client             // of host
	vsock       string // the socket of guest
	guest, host *process.Process
}

// bridge starts both programs, each with the arguments that both get.
func (l *lab) bridge(t *testing.T, args ...string) *bridge {
	t.Helper()
	dir := t.TempDir() // in the place of a VM
	b := &bridge{client: client{t, filepath.Join(dir, "docker.sock")}, vsock: filepath.Join(dir, "6660.sock")}
	b.guest = l.program(t, "rdd-guest", append(args, "-listen", "unix:"+b.vsock, "-target", "unix:"+l.daemon.socket)...)
	b.host = l.program(t, "docker-host", append(args, "-listen", "unix:"+b.socket, "-guest", "unix:"+dir)...)
	return b
}

func (l *lab) program(t *testing.T, name string, args ...string) *process.Process {
	t.Helper()
	p := process.Start(t, process.Command(t, append([]string{filepath.Join(l.dir, name)}, args...)...))
	p.WaitLog("msg=ready")
	return p
}

// box starts a container that does nothing, and returns its ID.
func (b *bridge) box() string {
	b.t.Helper()
	return b.container("sleep", "1000000")
}

// container starts one that lives as long as the daemon, which is quick to stop it.
func (b *bridge) container(args ...string) string {
	b.t.Helper()
	out := b.run(append([]string{"run", "--detach", "--network=none", "--stop-signal=KILL", image}, args...)...)
	return strings.TrimSpace(out)
}
