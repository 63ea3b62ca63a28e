// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// testHalfClose: FAILURES 25, and of 27 what goes through the switch.
func testHalfClose(t *testing.T, p programs) {
	l := newTrafficLab(t, p)
	for name, way := range map[string]struct {
		from                   *namespace
		late, soon, echo, none string
	}{
		"guest to world":    {l.guest, worldAddr + ":" + portLate, worldAddr + ":" + portSoon, worldAddr + ":" + portEcho, worldAddr + ":" + portNone},
		"guest to loopback": {l.guest, hostAlias + ":" + portLate, hostAlias + ":" + portSoon, hostAlias + ":" + portEcho, hostAlias + ":" + portNone},
		"host to guest":     {l.host, forwardedLate, forwardedSoon, forwardedEcho, forwardedNone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("late reply", func(t *testing.T) {
				require.Equal(t, "answer to question", ask(t, way.from, way.late, "question"))
			})
			t.Run("a hundred", func(t *testing.T) {
				for i := range 100 {
					question := fmt.Sprint("question ", i)
					require.Equal(t, "answer to "+question, ask(t, way.from, way.soon, question))
				}
			})
			t.Run("what is under way arrives", func(t *testing.T) {
				long := strings.Repeat("0123456789", 1<<16)
				require.Equal(t, long, ask(t, way.from, way.echo, long))
			})
			t.Run("refused port", func(t *testing.T) {
				conn, err := way.from.dial(t.Context(), "tcp4", way.none)
				if way.from == l.guest {
					require.ErrorIs(t, err, syscall.ECONNREFUSED)
					return
				}
				// The host's kernel accepts before the guest is asked; the reset
				// may still come before connect(2) returns.
				if err == nil {
					defer func() { _ = conn.Close() }()
					_, err = conn.Read(make([]byte, 1))
				}
				require.ErrorIs(t, err, syscall.ECONNRESET)
			})
		})
	}
}

// ask sends a question, half-closes, and returns the answer to its end.
func ask(t *testing.T, from *namespace, address, question string) string {
	t.Helper()
	conn := from.mustDial("tcp4", address)
	defer func() { _ = conn.Close() }()
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, question)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	return string(answer)
}
