// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
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
		code  int  // of the programs, -1 for a signal
	}{
		"it ends by itself": {drain: "1h", clean: true, then: func(t *testing.T, b *bridge, name string) {
			client{t, l.daemon.socket}.run("exec", name, "touch", "/go")
		}},
		"its time is over":     {drain: "1s"},
		"there is no patience": {drain: "0s"},
		"a second SIGTERM": {drain: "1h", code: -1, then: func(t *testing.T, b *bridge, _ string) {
			b.host.signal(syscall.SIGTERM)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := l.bridge(t, "-drain", c.drain)
			name := b.container(untilTold...)
			logs := b.start("logs", "-f", name)
			logs.waitLog("one\n")

			b.host.signal(syscall.SIGTERM)
			b.host.waitLog("msg=stopping active=1")
			_, err := b.try(nil, "ps")
			require.ErrorContains(t, err, "Cannot connect to the Docker daemon")
			if c.then != nil {
				c.then(t, b, name)
			}
			err = logs.wait()
			if c.clean {
				require.NoError(t, err)
				require.Equal(t, "one\ntwo\n", logs.log.String())
			} else {
				require.NotContains(t, logs.log.String(), "two")
			}
			_ = b.host.wait()
			require.Equal(t, c.code, b.host.cmd.ProcessState.ExitCode())
			b.guest.stop() // nothing is left there to wait for
		})
	}
}
