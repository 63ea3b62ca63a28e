// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build vmtest && linux

package host_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/internal/vmtest/talk"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

// testDocker: what Docker's clients do with their connections works through the
// guest's bridge (FAILURES 25).
func testDocker(t *testing.T) {
	answerGuest(t, talk.BeginPort)
	dial := socketbridge.DialVsock(uint32(*guest), talk.DockerPort)
	client := http.Client{Timeout: talk.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	call := func(method, path string) (body io.Reader) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+path, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp.Body
	}
	for _, upgrade := range []bool{true, false} {
		exec := func(what string) talk.Stream {
			t.Helper()
			conn, err := dial(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			return attach(t, conn, what, upgrade)
		}
		t.Log("echo hi | docker exec -i, upgrade:", upgrade)
		require.NoError(t, talk.Ask(exec("sum"), talk.Short))
		require.NoError(t, talk.Ask(exec("sum"), 0), "stdin is closed at once")

		t.Log("docker exec -it, upgrade:", upgrade)
		cat := exec("cat")
		for i := range 3 {
			line := fmt.Sprintln("line", i)
			_, err := io.WriteString(cat, line)
			require.NoError(t, err)
			got := make([]byte, len(line))
			_, err = io.ReadFull(cat, got)
			require.NoError(t, err)
			require.Equal(t, line, string(got))
		}
		require.NoError(t, cat.CloseWrite())
		rest, err := io.ReadAll(cat)
		require.NoError(t, err)
		require.Empty(t, rest)

		t.Log("docker events, upgrade:", upgrade)
		events := bufio.NewReader(call("GET", "/events"))
		line, err := events.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "start\n", line)
		call("POST", "/stop")
		rest, err = io.ReadAll(events)
		require.NoError(t, err, "the end is the server's")
		require.Equal(t, "die\n", string(rest))
	}

	t.Log("the server goes away")
	got, err := io.ReadAll(call("GET", "/broken"))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "not all of it", string(got))

	t.Log("the client goes away")
	conn, err := dial(t.Context())
	require.NoError(t, err)
	_, err = io.ReadFull(attach(t, conn, "yes", true), make([]byte, talk.Long))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	call("GET", "/gone")
	call("POST", "/end")
}

// attach asks for a raw stream as Docker's client does.
func attach(t *testing.T, conn net.Conn, what string, upgrade bool) talk.Stream {
	t.Helper()
	require.NoError(t, conn.SetDeadline(time.Now().Add(talk.Patience)))
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://docker/exec/"+what, strings.NewReader(`{"Tty":false}`))
	require.NoError(t, err)
	want := http.StatusOK
	if upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
		want = http.StatusSwitchingProtocols
	}
	require.NoError(t, req.Write(conn))
	ahead := bufio.NewReader(conn)
	resp, err := http.ReadResponse(ahead, req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, want, resp.StatusCode)
	return talk.Stream{Conn: conn, Ahead: ahead}
}
