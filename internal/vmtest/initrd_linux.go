// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// writeInitrd writes an archive that the kernel unpacks as its root: cpio,
// "newc" format (kernel: driver-api/early-userspace/buffer-format). files says
// which file of this system, or which content, is at which path.
func writeInitrd(name string, files map[string]source) (err error) {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriterSize(out, 1<<20)
	made := map[string]bool{".": true}
	var mkdir func(dir string)
	mkdir = func(dir string) {
		if !made[dir] {
			made[dir] = true
			mkdir(path.Dir(dir))
			header(w, dir, 0o40755, 0)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(files)) {
		mkdir(path.Dir(at))
		if err := files[at].add(w, at); err != nil {
			return err
		}
	}
	header(w, "TRAILER!!!", 0, 0)
	return w.Flush()
}

// A source is a file for the initrd: the path of one, or its content.
type source struct{ path, content string }

func (s source) add(w *bufio.Writer, at string) error {
	if s.path == "" {
		header(w, at, 0o100755, int64(len(s.content)))
		_, err := w.WriteString(s.content + padding(int64(len(s.content))))
		return err
	}
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header(w, at, 0o100755, info.Size())
	if _, err := io.CopyN(w, f, info.Size()); err != nil {
		return err
	}
	_, err = w.WriteString(padding(info.Size()))
	return err
}

// header writes what stands before a file. The writer keeps its error.
func header(w *bufio.Writer, name string, mode uint32, size int64) {
	h := fmt.Sprintf("070701%08x%08x%016x%08x%08x%08x%032x%08x%08x%s\x00",
		0, mode, 0, 1, 0, size, 0, len(name)+1, 0, name) // mode, links, size, length of the name
	_, _ = w.WriteString(h + padding(int64(len(h))))
}

// padding fills up to a multiple of four bytes.
func padding(size int64) string { return strings.Repeat("\x00", int(-size&3)) }
