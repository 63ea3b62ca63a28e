// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// kernel configures the interface by netlink. It remembers what it set, so as to
// take back that and nothing else.
type kernel struct {
	tap    *tap
	resolv resolvConf
	try    func(what string, do func() error) error
	now    Lease
}

// act is what a script does in its place.
func (k *kernel) act(_ context.Context, name string, g *grant) error {
	switch name {
	case "deconfig":
		return k.clear()
	case "bound", "renew":
		return k.set(g.lease)
	}
	return nil
}

func (k *kernel) set(l Lease) error {
	if k.now.Addr != l.Addr || k.now.Router != l.Router {
		if err := k.unset(); err != nil {
			return err
		}
	}
	k.now = l
	if err := k.try("set the address", func() error { return k.tap.addAddr(l.Addr) }); err != nil {
		return err
	}
	if l.Router.IsValid() {
		if err := k.try("set the default route", func() error { return k.tap.addRoute(l) }); err != nil {
			return err
		}
	}
	return k.try("write "+k.resolv.path, func() error { return k.resolv.write(l) })
}

// unset takes the route back first: it stays while other addresses do.
func (k *kernel) unset() error {
	var err error
	if k.now.Router.IsValid() {
		err = k.tap.delRoute(k.now)
	}
	if k.now.Addr.IsValid() {
		err = errors.Join(err, k.tap.delAddr(k.now.Addr))
	}
	k.now = Lease{}
	return err
}

func (k *kernel) clear() error { return errors.Join(k.unset(), k.resolv.restore()) }

// resolvConf is a resolv.conf(5) that is ours for a while.
type resolvConf struct {
	path   string
	ours   []byte // what was written last; nil: nothing
	target string // of the symbolic link that was there before
	before []byte // the file that was there before; nil: none
	mode   fs.FileMode
}

func (r *resolvConf) write(l Lease) error {
	if r.path == "" || len(l.DNS) == 0 {
		return r.restore()
	}
	if r.ours == nil {
		if err := r.remember(); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	search := l.Search
	if len(search) == 0 && l.Domain != "" {
		search = []string{l.Domain}
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	for _, a := range l.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if bytes.Equal(b.Bytes(), r.ours) {
		return nil
	}
	if err := r.replace(b.Bytes()); err != nil {
		return err
	}
	r.ours = b.Bytes()
	return nil
}

func (r *resolvConf) remember() error {
	r.target, r.before, r.mode = "", nil, 0o644
	info, err := os.Lstat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		r.target, err = os.Readlink(r.path)
		return err
	}
	r.mode = info.Mode().Perm()
	r.before, err = os.ReadFile(r.path)
	return err
}

// restore leaves the file alone if somebody else has written it since.
func (r *resolvConf) restore() error {
	if r.ours == nil {
		return nil
	}
	is, err := os.ReadFile(r.path)
	ours := r.ours
	r.ours = nil
	switch {
	case err != nil || !bytes.Equal(is, ours):
		return unless(err, fs.ErrNotExist)
	case r.target != "":
		return r.swap(func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Symlink(r.target, name)
		})
	case r.before != nil:
		return r.replace(r.before)
	}
	return os.Remove(r.path)
}

func (r *resolvConf) replace(content []byte) error {
	return r.swap(func(name string) error {
		return errors.Join(os.WriteFile(name, content, r.mode), os.Chmod(name, r.mode))
	})
}

// swap has a neighbour of the file made and puts it in the file's place, so that
// no reader sees half of it.
func (r *resolvConf) swap(fill func(name string) error) error {
	f, err := os.CreateTemp(filepath.Dir(r.path), ".resolv.conf-*")
	if err != nil {
		return err
	}
	err = errors.Join(f.Close(), fill(f.Name()))
	if err == nil {
		err = os.Rename(f.Name(), r.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
