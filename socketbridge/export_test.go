// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

// AllowVMBy is AllowVM on any system.
var AllowVMBy = func(vmOf vmQuestion, id ...string) PeerFilter { return allowVM(vmOf, id) }

// What ListenPipe decides before and after it asks Windows.
var (
	PipePath     = pipePath
	PipeSecurity = pipeSecurity
	PipeError    = pipeError
)
