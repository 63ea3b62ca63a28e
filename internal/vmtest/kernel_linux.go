// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

// A kernel is an unpacked Debian package, of which nothing is installed.
type kernel struct{ image, modules string }

// findKernel returns the cached kernel, downloaded by apt-get if there is none.
func findKernel(t testing.TB) kernel {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		house.Missing(t, "the kernel of the test machines is for amd64: run this test there")
	}
	house.NeedPrograms(t, "apt-get", "apt-cache", "dpkg")
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "guestnet-vmtest")
	if k, err := cached(cache); err == nil {
		return k
	}
	if err := download(t.Context(), cache); err != nil {
		house.Missing(t, fmt.Sprintf("no kernel for the test machines in %s, and none can be downloaded (apt-get update may help): %v", cache, err))
	}
	k, err := cached(cache)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// cached returns the newest kernel in the cache.
func cached(cache string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(cache, "linux-*", "boot", "vmlinuz-*"))
	if err != nil || images == nil {
		return kernel{}, fmt.Errorf("no kernel in %s", cache)
	}
	image := slices.Max(images)
	version := filepath.Base(image)[len("vmlinuz-"):]
	return kernel{image, filepath.Join(image, "../../lib/modules", version, "kernel")}, nil
}

// download gets and unpacks the package that Debian's newest cloud kernel is in.
func download(ctx context.Context, cache string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(cache, "download")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it only takes space
	run := func(name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		var stderr bytes.Buffer
		cmd.Dir, cmd.Stderr = dir, &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", cmd, err, &stderr)
		}
		return out, err
	}
	depends, err := run("apt-cache", "depends", "linux-image-cloud-amd64")
	if err != nil {
		return err
	}
	name := string(regexp.MustCompile(`linux-image-\d\S*-cloud-amd64`).Find(depends))
	if name == "" {
		return fmt.Errorf("apt knows no cloud kernel: %q", depends)
	}
	if _, err := run("apt-get", "-qq", "-o", "Acquire::Retries=3", "download", name); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get downloaded %q", packages)
	}
	if _, err := run("dpkg", "-x", packages[0], "root"); err != nil {
		return err
	}
	// In one step, so that nobody ever sees half a kernel.
	err = os.Rename(filepath.Join(dir, "root"), filepath.Join(cache, name))
	if _, found := cached(cache); found == nil {
		return nil // whoever was faster
	}
	return err
}
