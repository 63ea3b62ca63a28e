// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package house holds what the tests of this repository share about the machine
// that they run on. Its own tests are the rules of the house that no linter
// knows: documentation, dependencies, file sizes, the change log, the README.
//
// A test that needs root or a program asks for it here. Without it the test is
// skipped on a developer's machine, with the remedy in the message, and fails
// where the environment says CI=true: there a skip would hide a hole. What wine
// cannot do is the one exception, and counted by its reason.
package house

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Missing ends t because the machine lacks something: a skip, or a failure
// where CI=true. The message says what is missing and how to get it.
func Missing(t testing.TB, message string) {
	t.Helper()
	if os.Getenv("CI") == "true" { //nolint:forbidigo // how CI systems say that they are one
		t.Fatal("CI=true, so this may not be skipped: " + message)
	} else {
		t.Skip(message)
	}
}

// NeedRoot ends t as [Missing] does unless it runs as root, which network
// namespaces and tap devices ask for.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root on Linux for network namespaces: sudo make test")
	}
}

// NeedPrograms ends t as [Missing] does unless all the named programs are found.
func NeedPrograms(t testing.TB, names ...string) {
	t.Helper()
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		Missing(t, "not found: "+strings.Join(missing, ", ")+"; make setup installs them on Debian as root")
	}
}

// WineLacks skips t under wine, where make test-windows runs it and what it needs is
// not to be had; on a real Windows t goes on. The message is the one that testsum
// counts and allows.
func WineLacks(t testing.TB, what string) {
	t.Helper()
	if OnWine() {
		t.Skip("wine lacks " + what)
	}
}
