// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package socketbridge

// ListenPipeAs is ListenPipe with what Windows alone can do.
var ListenPipeAs = listenPipeAs
