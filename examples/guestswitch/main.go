// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command guestswitch puts a tap interface of this machine into the virtual
// network of its host, until it gets SIGINT or SIGTERM. A second one ends it at once,
// and then the file of -resolv-conf and what -dhcp started stay as they are.
//
//	guestswitch -connect vsock:2:6656
//	guestswitch -connect vsock:2:6656 -handshake vsock:6669 -netns 4711
//	guestswitch -connect unix:/run/host.sock -netns /run/netns/guest -dhcp exec:"udhcpc -f -i eth0"
//
// Addresses may have slashes, as URLs do: unix:///run/host.sock.
//
// With -handshake the host is dialled when it has found this machine and said that
// it listens. Then, and with -restart, all begins anew when the host is lost; where
// the interface cannot be made, as its name is taken or a right is missing, it ends.
//
// As a systemd service it may be of Type=notify: it is ready when the first frame
// has come and the interface has its address. The status says what it waits for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rancher-sandbox/guestnet/discovery"
	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/vmflag"
	"github.com/rancher-sandbox/guestnet/guestswitch"
	"github.com/rancher-sandbox/guestnet/lifecycle"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func main() {
	// What it does is little for one processor: a second would be woken for each batch
	// of frames, and find that the first is done.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	os.Exit(run(service.UntilSignal(), os.Args[1:], os.Stderr))
}

// restart is how soon the host is tried again.
var restart = lifecycle.Restart{Min: 100 * time.Millisecond, Max: 5 * time.Second}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	return service.Run(ctx, "guestswitch", args, stderr, parse, supervise)
}

// supervise runs the Guest until ctx ends, or it has failed and is not to be
// restarted.
func supervise(ctx context.Context, o options) error {
	log := o.log
	var lease atomic.Pointer[guestswitch.Lease]
	o.guest.OnEvent = func(e guestswitch.Event) {
		if e.Kind == guestswitch.Configured || e.Kind == guestswitch.Renewed {
			lease.Store(&e.Lease)
		}
	}
	failed := make(chan struct{})
	fail := sync.OnceFunc(func() { close(failed) })
	cfg := lifecycle.Config{OnChange: func(st lifecycle.Status) {
		switch st.State {
		case lifecycle.Backoff, lifecycle.Degraded:
			log.Warn("guestswitch: "+st.State.String(), "error", st.Err)
		case lifecycle.Ready:
			attrs := []any{"iface", o.guest.Tap.Name}
			if l := lease.Load(); l != nil && l.Addr.IsValid() {
				attrs = append([]any{"address", l.Addr}, attrs...)
			}
			log.Info("ready", attrs...)
		case lifecycle.Failed, lifecycle.Stopped:
			fail()
		}
		service.Tell(ctx, log, notification(st))
	}}
	if o.restart {
		cfg.Restart = restart
	}
	const name = "guest"
	s := lifecycle.New(cfg)
	task := func(ctx context.Context, report func(error)) error {
		return explain(o.guest.RunReporting(ctx, report), o.guest.Tap.NetNS)
	}
	if err := s.Start(ctx, name, lifecycle.ReporterFunc(task)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-failed:
	}
	err := s.Close()
	st, _ := s.Status(name)
	return errors.Join(err, st.Err)
}

// explain adds the flags to an error that names fields of the library, and to one that
// no restart mends that it is such: who has the name does not make room, and rights do
// not grow. Those to the host's socket may, with the next host, and a namespace may come.
func explain(err error, netns string) error {
	op, ok := errors.AsType[*net.OpError](err)
	path, _ := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path != nil && path.Path == netns:
		return fmt.Errorf("%w: is it there? ip netns add makes one, in /run/netns (-netns)", err)
	case errors.Is(err, guestswitch.ErrTapExists):
		return lifecycle.Permanent(fmt.Errorf("%w (-iface, -netns)", err))
	case errors.Is(err, fs.ErrPermission) && (!ok || op.Op != "dial"):
		return lifecycle.Permanent(err)
	}
	return err
}

type options struct {
	guest   *guestswitch.Guest
	log     *slog.Logger // of this program; that of guest has no more than warnings without -v
	restart bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	g := &guestswitch.Guest{}
	level := slog.LevelWarn
	var once, again, never bool // fd:, -restart, -restart=false
	var protocol discovery.Protocol
	var filter socketbridge.PeerFilter // of -handshake
	flags := flag.NewFlagSet("guestswitch", flag.ContinueOnError)
	var handshake string
	flags.Func("connect", "`address` of the host: unix:PATH, vsock:CID:PORT or fd:NUMBER", func(s string) (err error) {
		once = strings.HasPrefix(s, "fd:")
		g.Dial, err = dialer(s)
		return err
	})
	flags.Func("handshake", "`address` where the host says that it is ready: vsock:PORT or unix:PATH (default: none, the host is ready)", func(s string) (err error) {
		handshake = s
		scheme, _ := service.Address(s)
		filter = service.Host(scheme)
		g.Listen, err = service.ForHost(s, "6669")
		return err
	})
	vmflag.Protocol(flags, &protocol, "handshake")
	flags.BoolFunc("restart", "begin anew when the host is lost (default with -handshake)", func(s string) error {
		on, err := strconv.ParseBool(s)
		again, never = on, !on
		return err
	})
	flags.StringVar(&g.Tap.Name, "iface", guestswitch.DefaultName, "`name` of the interface to create")
	flags.Func("mac", "the interface's MAC `address` (default 5a:94:ef:e4:0c:ee)", func(s string) (err error) {
		g.Tap.MAC, err = net.ParseMAC(s)
		return err
	})
	flags.Func("netns", "`path` of the network namespace in which the interface is created, or pid of a process there (default this one)", func(s string) (err error) {
		g.Tap.NetNS, err = namespace(s)
		return err
	})
	service.Number(flags, "mtu", &g.Tap.MTU, 68, 65521, "the interface's MTU in `bytes` (default that of the lease)")
	flags.Func("resolv-conf", "`path` of a file that gets the name servers, with -dhcp builtin (default none)", func(s string) error {
		g.ResolvConf = s
		_, err := os.Stat(filepath.Dir(s) + "/.") // a directory
		return err
	})
	flags.Func("dhcp", "`who` configures the interface: builtin, none, exec:COMMAND or script:PATH (default builtin)", func(s string) (err error) {
		g.DHCP, err = configurer(s)
		return err
	})
	flags.Func("framing", "`how` frames stand on the connection: auto, which offers the host segmentation offload, or plain (default auto)", func(s string) (err error) {
		g.Framing, err = framing(s)
		return err
	})
	flags.BoolFunc("v", "print what happens", func(string) error { level = slog.LevelDebug; return nil })

	err := service.Parse(flags, args, stderr, "-connect ADDRESS [flags]")
	switch {
	case err == nil && g.Dial == nil:
		err = errors.New("-connect is missing: say where the host is, such as vsock:2:6656")
	case err == nil && once && (again || g.Listen != nil):
		err = errors.New("fd: is one connection, used up by the first run: it goes neither with -restart nor with -handshake")
	case err == nil && g.ResolvConf != "" && g.DHCP != nil && g.DHCP != guestswitch.BuiltinDHCP():
		err = errors.New("-resolv-conf goes with -dhcp builtin: no other hands on name servers")
	case err == nil:
		err = service.Needs(flags, "protocol", "handshake")
	}
	out := &lockedWriter{Writer: stderr}
	log := service.NewLogger(out, slog.LevelInfo)
	g.Logger = service.NewLogger(out, level)
	if listen := g.Listen; listen != nil {
		g.Listen = func(ctx context.Context) (net.Listener, error) {
			ln, err := listen(ctx)
			if err == nil {
				log.Info("waiting for the host's handshake", "on", handshake)
			}
			return ln, err
		}
		g.Responder = &discovery.Responder{Protocol: protocol, Filter: filter, Logger: g.Logger}
	}
	return options{guest: g, log: log, restart: again || g.Listen != nil && !never}, err
}

// A lockedWriter is written to by two loggers, a line at a time.
type lockedWriter struct {
	io.Writer
	mu sync.Mutex
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Writer.Write(p)
}

// namespace is a path, or that of a process's namespace.
func namespace(s string) (string, error) {
	if _, err := strconv.ParseUint(s, 10, 31); err == nil {
		return "/proc/" + s + "/ns/net", nil
	}
	if s == filepath.Base(s) {
		return "", fmt.Errorf("write a path, as in /run/netns/%s", s)
	}
	return s, nil
}

func framing(s string) (guestswitch.Framing, error) {
	switch s {
	case "auto":
		return guestswitch.FramingAuto, nil
	case "plain":
		return guestswitch.FramingPlain, nil
	}
	return 0, errors.New("use auto or plain")
}

func configurer(s string) (guestswitch.DHCP, error) {
	kind, arg, _ := strings.Cut(s, ":")
	switch {
	case s == "builtin":
		return guestswitch.BuiltinDHCP(), nil
	case s == "none":
		return guestswitch.NoDHCP(), nil
	case kind == "exec" && strings.TrimSpace(arg) != "":
		argv := strings.Fields(arg)
		_, err := exec.LookPath(argv[0])
		return guestswitch.ExecDHCP(argv...), err
	case kind == "script" && arg != "":
		_, err := exec.LookPath(arg)
		return guestswitch.ScriptDHCP(arg), err
	}
	return nil, errors.New("use builtin, none, exec:COMMAND or script:PATH")
}
