// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
