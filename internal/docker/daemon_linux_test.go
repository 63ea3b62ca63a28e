// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// inside runs dockerd as the first process of its namespaces: when it ends, the
// kernel ends whatever it has started, and takes the mounts away. /run and
// /etc/docker are where it and containerd write wherever else they are told to.
const inside = `
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/docker
exec dockerd "$@"
`

// A daemon is a dockerd that can be stopped and started again.
type daemon struct {
	t      *testing.T
	dir    string
	socket string
	*process.Process
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, dir: dir, socket: filepath.Join(dir, "docker.sock")}
	require.NoError(t, os.WriteFile(d.path("daemon.json"), []byte("{}"), 0o600)) // not the machine's
	d.start()
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// start starts dockerd and waits until it serves.
func (d *daemon) start() {
	d.t.Helper()
	cmd := process.Command(d.t, "sh", "-ec", inside, "dockerd",
		"--config-file", d.path("daemon.json"), "--data-root", d.path("data"), "--exec-root", d.path("exec"),
		"--pidfile", d.path("pid"), "--host", "unix://"+d.socket, "--storage-driver", "vfs",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none",
		"--log-level=error")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	}
	d.Process = process.Start(d.t, cmd)
	require.Eventually(d.t, func() bool {
		_, err := client{d.t, d.socket}.try(nil, "ps")
		return err == nil || d.Ended()
	}, patience, tick, "dockerd does not serve")
	require.False(d.t, d.Ended(), "dockerd %s\n%s", d.State(), &d.Log)
}

// importImage makes an image of busybox.
func (d *daemon) importImage(name string) {
	d.t.Helper()
	root := d.t.TempDir()
	program, err := exec.LookPath("busybox")
	require.NoError(d.t, err)
	busybox, err := os.ReadFile(program)
	require.NoError(d.t, err)
	require.NoError(d.t, os.Mkdir(filepath.Join(root, "bin"), 0o755))
	require.NoError(d.t, os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755)) //nolint:gosec // a program
	for _, applet := range []string{"cat", "echo", "rm", "sh", "sha256sum", "sleep", "touch"} {
		require.NoError(d.t, os.Symlink("busybox", filepath.Join(root, "bin", applet)))
	}
	image := filepath.Join(d.dir, "image.tar")
	tar := exec.CommandContext(d.t.Context(), "tar", "-C", root, "-cf", image, ".")
	out, err := tar.CombinedOutput()
	require.NoError(d.t, err, "%s", out)
	client{d.t, d.socket}.run("import", image, name)
}

// needs ends the test unless this machine can run any of this.
func needs(t *testing.T) {
	t.Helper()
	house.NeedRoot(t)
	house.NeedPrograms(t, "docker", "dockerd", "busybox", "mount", "tar")
	program, err := exec.LookPath("busybox")
	require.NoError(t, err)
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // it was read
	if f.Section(".interp") != nil {
		house.Missing(t, program+" needs libraries, which the test's image has not: apt-get install busybox-static")
	}
}
