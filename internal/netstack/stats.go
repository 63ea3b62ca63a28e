// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"reflect"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// StatsTree is the stack's own account as nested maps of counters, to be shown as
// JSON: the names are gVisor's, which gvisor-tap-vsock shows too.
func (s *Stack) StatsTree() map[string]any {
	return counters(reflect.ValueOf(s.stack.Stats()))
}

func counters(v reflect.Value) map[string]any {
	tree := make(map[string]any)
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i)
		if !name.IsExported() {
			continue
		}
		if field.Kind() == reflect.Struct {
			tree[name.Name] = counters(field)
		} else if c, ok := reflect.TypeAssert[*tcpip.StatCounter](field); ok && c != nil {
			tree[name.Name] = c.Value()
		}
	}
	return tree
}
