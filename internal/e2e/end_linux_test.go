// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
)

// testEnd: each side ends cleanly, and the other notices.
func testEnd(t *testing.T, p programs) {
	capture := filepath.Join(t.TempDir(), "capture")
	l := newTrafficLab(t, p, "-capture", capture)
	require.Equal(t, banner(l.world), l.guest.run("curl", "-sS", "http://www.example.test/"))
	require.Equal(t, banner(l.guest), l.host.run("curl", "-sS", "http://"+forwardedHTTP))
	busy := l.guest.mustDial("tcp4", worldAddr+":"+portEcho)
	var traffic sync.WaitGroup
	traffic.Go(func() { _, _ = io.Copy(busy, rand.Reader) }) // until it ends
	traffic.Go(func() { _, _ = io.Copy(io.Discard, busy) })

	l.hostswitch.Stop()
	var exit *exec.ExitError
	require.ErrorAs(t, l.guestswitch.Wait(), &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, l.guestswitch.Log.String(), "the host closed")
	_, ok := tryLink(l.guest, "eth0")
	require.False(t, ok, "the tap is still there")
	_ = busy.Close()
	traffic.Wait()

	for _, path := range []string{l.net, l.api} {
		require.NoFileExists(t, path)
	}
	for _, local := range []string{forwardedHTTP, forwardedLate} {
		_, err := l.host.dial(t.Context(), "tcp4", local)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
	l.startHost(forwards()...) // all of it is free again
	l.startGuest()
	require.Equal(t, banner(l.guest), l.host.run("curl", "-sS", "http://"+forwardedHTTP))
	l.hostswitch.Signal(syscall.SIGINT)
	require.NoError(t, l.hostswitch.Wait())
	require.Error(t, l.guestswitch.Wait())

	from := sources(t, capture)
	require.Positive(t, from[guestMAC], "frames of the guest")
	require.Positive(t, from[gatewayMAC], "frames of the gateway")
}

// sources counts the frames of a capture by who sent them.
func sources(t *testing.T, file string) map[string]int {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	count := map[string]int{}
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return count
		}
		require.NoError(t, err)
		p := gopacket.NewPacket(data, r.LinkType(), gopacket.Default)
		eth, ok := p.LinkLayer().(*layers.Ethernet)
		require.True(t, ok)
		require.Nil(t, p.ErrorLayer(), "%v", p)
		count[eth.SrcMAC.String()]++
	}
}
