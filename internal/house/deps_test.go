// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDependencies keeps the rooms apart and the guest agent small. Each room is
// listed with what it may reach, directly or not, beside the standard library;
// a nil list is everything but gVisor.
func TestDependencies(t *testing.T) {
	sockets := []string{module + "/internal/", "github.com/mdlayher/", "github.com/Microsoft/go-winio", "github.com/linuxkit/virtsock", "golang.org/x/"}
	rooms := map[string][]string{
		"lifecycle":          {},
		"subnet":             {"golang.org/x/sys/", "golang.org/x/net/"},
		"discovery":          sockets,
		"socketbridge":       sockets,
		"guestswitch":        nil,
		"internal/frame":     {module + "/internal/packet"},
		"internal/packet":    {},
		"examples/rdd-guest": append([]string{module + "/socketbridge", module + "/examples/internal/"}, sockets...),
	}
	all, _ := folders(t)
	for room, allowed := range rooms {
		if all[room] == nil {
			continue // not built yet
		}
		for _, system := range []string{"linux", "windows", "darwin"} {
			t.Setenv("GOOS", system)
			t.Setenv("CGO_ENABLED", "0")
			list := run(t, "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+room)
			for dep := range strings.FieldsSeq(list) {
				require.False(t, strings.HasPrefix(dep, "gvisor.dev/"), "%s pulls in %s on %s", room, dep, system)
				require.True(t, allowed == nil || within(dep, append(allowed, module+"/"+room)), "%s pulls in %s on %s", room, dep, system)
			}
		}
	}
}

func within(dep string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(dep, prefix) {
			return true
		}
	}
	return false
}

// TestCompatCoversEverything: a package that the modules in internal/compat do
// not import is not proven to build beside gvisor-tap-vsock, nor on the newest gVisor.
func TestCompatCoversEverything(t *testing.T) {
	all, _ := folders(t)
	for _, dir := range []string{"internal/compat/gvtv", "internal/compat/gvisor"} {
		imported := map[string]bool{}
		for _, file := range all[dir].parsed {
			for _, spec := range file.Imports {
				imported[strings.Trim(spec.Path.Value, `"`)] = true
			}
		}
		for room, f := range all {
			if f.public(room) && !imported[module+"/"+room] {
				t.Errorf("%s does not import %s", dir, room)
			}
		}
	}
}
