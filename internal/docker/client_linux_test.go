// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/house/process"
)

// A client is the docker command, at a socket.
type client struct {
	t      *testing.T
	socket string
}

// env is the client's own configuration, not that of whoever runs the test.
func (c client) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "DOCKER_CONFIG=/nonexistent", "DOCKER_HOST=unix://" + c.socket}
}

// try runs docker to its end, and returns what it printed. A hang is an error.
func (c client) try(stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env, cmd.WaitDelay = c.env(), patience
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return out.String(), err
}

// run is try for what has to succeed.
func (c client) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(nil, args...)
	require.NoError(c.t, err)
	return out
}

// start starts docker, which goes on beside the test.
func (c client) start(args ...string) *process.Process {
	c.t.Helper()
	cmd := process.Command(c.t, append([]string{"docker"}, args...)...)
	cmd.Env = c.env()
	return process.Start(c.t, cmd)
}
