// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package guestswitch

// SetFault has the steps of a run fail for which f returns an error.
func (g *Guest) SetFault(f func(step string) error) { g.fault = f }
