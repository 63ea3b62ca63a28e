// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// FAILURES 12: SIGTERM lets in nobody any more, and cuts nobody at once.
func TestDrain(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct {
		drain string
		then  func(t *testing.T, b *bridge, name string)
		clean bool // the end of the logs
		code  int  // of rdd-guest
	}{
		"it ends by itself": {drain: "1h", clean: true, then: func(t *testing.T, b *bridge, name string) {
			client{t, l.daemon.socket}.run("exec", name, "touch", "/go")
		}},
		"its time is over":     {drain: "1s"},
		"there is no patience": {drain: "0s"},
		"a second SIGTERM": {drain: "1h", code: 1, then: func(t *testing.T, b *bridge, _ string) {
			b.guest.Signal(syscall.SIGTERM)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := l.bridge(t, "-drain", c.drain)
			docker := client{t, b.vsock} // straight to rdd-guest
			name := b.container(untilTold...)
			logs := docker.start("logs", "-f", name)
			logs.WaitLog("one\n")

			b.guest.Signal(syscall.SIGTERM)
			b.guest.WaitLog("msg=stopping active=1")
			require.Eventually(t, func() bool {
				_, err := os.Stat(b.vsock)
				return os.IsNotExist(err)
			}, patience, tick, "it still listens")
			_, err := docker.try(nil, "ps")
			require.ErrorContains(t, err, "Cannot connect to the Docker daemon")
			if c.then != nil {
				c.then(t, b, name)
			}
			err = logs.Wait()
			if c.clean {
				require.NoError(t, err)
				require.Equal(t, "one\ntwo\n", logs.Log.String())
			} else {
				require.NotContains(t, logs.Log.String(), "two")
			}
			_ = b.guest.Wait()
			require.Equal(t, c.code, b.guest.Cmd.ProcessState.ExitCode())
		})
	}
}
