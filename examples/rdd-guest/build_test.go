// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house"
)

// largest is what the binary may have, in an image in which every byte counts.
const largest = 3_300_000

// The command of the Dockerfile builds what the image needs: a program that asks for
// nothing there, without gVisor in it.
func TestStaticBinary(t *testing.T) {
	file, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^RUN (.*go build .*)$`).FindSubmatch(file)
	require.NotNil(t, command, "the Dockerfile does not build")
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), "rdd-guest")
			build := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(string(command[1]), "/rdd-guest ", binary+" ", 1))
			build.Dir = "../.." // WORKDIR
			build.Env = append(os.Environ(), "TARGETARCH="+arch)
			out, err := build.CombinedOutput()
			require.NoError(t, err, "%s", out)

			program, err := elf.Open(binary)
			require.NoError(t, err)
			defer program.Close() //nolint:errcheck // it was read
			require.Equal(t, machine, program.Machine)
			require.Nil(t, program.Section(".interp"), "it has an interpreter, so it is not static")
			libraries, err := program.ImportedLibraries()
			require.NoError(t, err)
			require.Empty(t, libraries)
			info, err := os.Stat(binary)
			require.NoError(t, err)
			require.LessOrEqual(t, info.Size(), int64(largest))
			t.Logf("%s: %d bytes", arch, info.Size())
			built, err := buildinfo.ReadFile(binary)
			require.NoError(t, err)
			for _, module := range built.Deps {
				require.NotEqual(t, "gvisor.dev/gvisor", module.Path)
			}
		})
	}
}

// What systemd makes of the units: no mistakes, and little left that the service may do.
func TestUnits(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd is for Linux: run this there")
	}
	house.NeedPrograms(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"rdd-guest.service", "rdd-guest.socket"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		self, err := os.Executable() // the program has to exist
		require.NoError(t, err)
		text = []byte(strings.ReplaceAll(string(text), "/usr/local/bin/rdd-guest", self))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	service := filepath.Join(dir, "rdd-guest.service")
	for _, args := range [][]string{
		{"verify", filepath.Join(dir, "rdd-guest.socket"), service},
		{"security", "--offline=true", "--threshold=15", service}, // of 100, which is all
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		if args[0] == "verify" {
			require.Empty(t, string(out))
		}
	}
	// Where it is not in [Unit], systemd does not know it.
	text, err := os.ReadFile("rdd-guest.service")
	require.NoError(t, err)
	require.Regexp(t, `(?s)\[Unit\]\n[^\[]*\nStartLimitIntervalSec=0\n.*\[Service\]\n.*\nRestart=always\n`, string(text))

	started := regexp.MustCompile(`(?m)^ExecStart=\S+ (.*)$`)
	_, err = parse(strings.Fields(string(started.FindSubmatch(text)[1])), os.Stderr)
	require.NoError(t, err)
}
