// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package service_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/examples/internal/service"
	"github.com/rancher-sandbox/guestnet/examples/internal/servicetest"
	"github.com/rancher-sandbox/guestnet/socketbridge"
)

func TestServe(t *testing.T) {
	dir := servicetest.Dir(t)
	told := servicetest.Manager(t, dir)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var log bytes.Buffer
	b := &socketbridge.Bridge{
		Filter: socketbridge.AllowAll(),
		Dial:   socketbridge.DialUnix(filepath.Join(dir, "gone")),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Serve(ctx, b, ln, "at\nwork") }()
	require.Equal(t, "READY=1\nSTATUS=at; work", told())
	cancel()
	require.Equal(t, "STOPPING=1\nSTATUS=waiting for 0 connections to end", told())
	require.NoError(t, <-ended)
	require.Contains(t, log.String(), "msg=ended stats.accepted=0")
	require.Contains(t, log.String(), "listen=tcp:"+ln.Addr().String())
	require.Contains(t, log.String(), "msg=stopping active=0\n", "nothing to wait for")
}
