// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/rancher-sandbox/guestnet/internal/vmtest/qemu"
)

// InnerCID is the address of the inner machine of a pair.
const InnerCID = 42

// patience only keeps a machine that hangs from hanging for ever.
const patience = 8 * time.Minute

// A Program is what a machine runs.
type Program struct {
	Path string   // of a static binary of this system
	Args []string // without spaces and commas

	beside []string // paths of binaries that it finds in its folder
}

// Modules of the kernel, each after those that it needs.
var (
	loopback = []string{
		"net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common",
		"net/vmw_vsock/vsock_loopback", "drivers/net/tun",
	}
	vhost = []string{
		"drivers/vhost/vhost_iotlb", "drivers/vhost/vhost", "drivers/vhost/vhost_vsock",
	}
	virtio = []string{
		"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
		"drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "net/vmw_vsock/vmw_vsock_virtio_transport",
	}
)

// Build compiles the tests of a package, given as for go test, to a program,
// with the race detector if race says so.
func Build(t *testing.T, race bool, pkg string, args ...string) Program {
	t.Helper()
	p := Program{Path: filepath.Join(t.TempDir(), path.Base(pkg)), Args: append([]string{"-test.v"}, args...)}
	flags := []string{"test", "-c", "-tags", "vmtest", "-o", p.Path}
	if race {
		goTool(t, "CGO_ENABLED=1", append(flags, "-race", "-ldflags", "-s -w -linkmode external -extldflags -static", pkg)...)
	} else {
		goTool(t, "CGO_ENABLED=0", append(flags, "-ldflags", "-s -w", pkg)...)
	}
	return p
}

// With compiles a command, given as for go build, which p finds beside itself.
func (p Program) With(t *testing.T, pkg string) Program {
	t.Helper()
	command := filepath.Join(t.TempDir(), path.Base(pkg))
	goTool(t, "CGO_ENABLED=0", "build", "-ldflags", "-s -w", "-o", command, pkg)
	p.beside = append(slices.Clone(p.beside), command)
	return p
}

// Run runs programs side by side in one machine, until all have ended or one
// has failed, and logs what they print. t fails if one of them does, or if one
// of their tests is skipped.
func Run(t *testing.T, programs ...Program) {
	t.Helper()
	l := newLab(t)
	m := l.machine("machine", programs, loopback, nil)
	m.Command = slices.Concat([]string{"nice", "-n", "5"}, emulated("q35", 512), m.Command) // for the tests beside it
	l.run(m)
}

// RunPair is [Run] in two machines with a vsock between them, one inside of the
// other: outer is on the host, CID 2, and inner on its guest, CID InnerCID. The
// inner program has to wait for its vsock with [qemu.AwaitVsock].
func RunPair(t *testing.T, outer, inner Program) {
	t.Helper()
	l := newLab(t)

	// An emulated emulator would need minutes to boot a kernel. So the inner
	// machine boots here and waits for a vsock device, which it gets when it has
	// been saved and resumed inside of the outer one.
	state := filepath.Join(l.dir, "state")
	hardware := emulated("pc", 128)
	saved := l.machine("inner", []Program{inner}, slices.Concat(loopback, virtio), nil)
	saved.Command = slices.Concat(hardware, saved.Command)
	saved.OnParked = []string{`migrate "exec:cat > ` + state + `"`, "quit"}
	if code, err := saved.Run(l.ctx); err != nil || code != -1 {
		t.Fatalf("the inner machine was not saved: exit code %d, %v", code, err)
	}

	files := emulator(t)
	files["inner/state"] = source{path: state}
	files["inner/command"] = source{content: strings.Join(hardware, "\n")}
	m := l.machine("outer", []Program{outer}, slices.Concat(loopback, vhost), files, "-nest", strconv.Itoa(InnerCID))
	m.Command = slices.Concat(emulated("q35", 1024), m.Command)
	l.run(m)
}

// A lab is what the machines of one test are made of.
type lab struct {
	t      *testing.T
	ctx    context.Context
	kernel kernel
	dir    string
	init   string
	began  time.Time
}

func newLab(t *testing.T) *lab {
	t.Helper()
	house.NeedPrograms(t, qemu.Program, "nice")
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("the machine has not ended in %v", patience))
	t.Cleanup(cancel)
	l := &lab{t: t, ctx: ctx, kernel: findKernel(t), dir: t.TempDir(), began: time.Now()}
	l.init = filepath.Join(l.dir, "init")
	goTool(t, "CGO_ENABLED=0", "build", "-ldflags", "-s -w", "-o", l.init, "github.com/rancher-sandbox/guestnet/internal/vmtest/init")
	return l
}

// goTool runs the go command.
func goTool(t *testing.T, env string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(cmd.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// machine returns a machine that runs programs, with the kernel's modules and
// more files in it. It has no hardware yet.
func (l *lab) machine(name string, programs []Program, modules []string, files map[string]source, initArgs ...string) qemu.Machine {
	l.t.Helper()
	// Every other clock than the TSC is a device, which is slow to emulate, and a
	// busy host fails the check of the timer. What the kernel does not know becomes
	// the environment, where CI makes failures of skips.
	words := append([]string{"console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable no_timer_check PATH=/usr/bin CI=true --"}, initArgs...)
	all := map[string]source{"init": {path: l.init}}
	for i, p := range programs {
		if i > 0 {
			words = append(words, ",")
		}
		at := path.Join("programs", filepath.Base(p.Path))
		all[at] = source{path: p.Path}
		for _, command := range p.beside {
			all[path.Join("programs", filepath.Base(command))] = source{path: command}
		}
		words = append(append(words, "/"+at), p.Args...)
	}
	for i, module := range modules {
		all[fmt.Sprintf("modules/%02d.ko", i)] = source{path: filepath.Join(l.kernel.modules, module+".ko")}
	}
	maps.Copy(all, files)
	initrd := filepath.Join(l.dir, name+".cpio")
	if err := writeInitrd(initrd, all); err != nil {
		l.t.Fatal(err)
	}
	return qemu.Machine{
		Command: []string{"-kernel", l.kernel.image, "-initrd", initrd, "-append", strings.Join(words, " ")},
		Line: func(line string) {
			l.t.Logf("%5.1f s %s", time.Since(l.began).Seconds(), line)
			if strings.Contains(line, "--- SKIP") || strings.Contains(line, "no tests to run") {
				l.t.Errorf("in a machine nothing may be skipped: %s", line)
			}
		},
	}
}

// run runs a machine to the end of its programs.
func (l *lab) run(m qemu.Machine) {
	l.t.Helper()
	code, err := m.Run(l.ctx)
	if err != nil || code != 0 {
		l.t.Fatalf("exit code %d (-1: it ended before its programs), %v", code, err)
	}
}

// emulated is a machine that needs nothing of the one it runs on.
func emulated(model string, memory int) []string {
	return []string{
		qemu.Program, "-M", model, "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", strconv.Itoa(memory),
		"-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
	}
}

// emulator returns this system's QEMU, with all that it loads.
func emulator(t *testing.T) map[string]source {
	t.Helper()
	house.NeedPrograms(t, "ldd")
	program, err := exec.LookPath(qemu.Program)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{program}
	for word := range strings.FieldsSeq(string(out)) {
		if filepath.IsAbs(word) {
			paths = append(paths, word)
		}
	}
	for _, pattern := range []string{
		"/usr/lib/*/qemu/accel-tcg-x86_64.so", "/usr/share/seabios/bios-256k.bin",
		"/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			t.Fatalf("of QEMU, want one %s, found %q", pattern, found)
		}
		paths = append(paths, found...)
	}
	files := map[string]source{}
	for _, p := range paths {
		at := strings.Replace(p, "/seabios/", "/qemu/", 1)
		files[strings.TrimPrefix(at, "/")] = source{path: p}
	}
	return files
}
