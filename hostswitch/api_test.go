// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/gvisor-tap-vsock/pkg/client"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/stretchr/testify/require"

	"github.com/rancher-sandbox/guestnet/hostswitch"
)

const gatewayAPI = "http://192.168.127.1"

// call makes a request and returns status and body.
func call(t testing.TB, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(withTimeout(t), method, url, strings.NewReader(body))
	require.NoError(t, err)
	res, err := c.Do(req)
	require.NoError(t, err)
	defer res.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

// gvisor-tap-vsock's own client drives the API, from the guest and on the host.
func TestClientOfGvisorTapVsock(t *testing.T) {
	for _, who := range []string{"the host", "guest 192.168.127.2"} {
		t.Run(who, func(t *testing.T) {
			sw := newSwitch(t, hostswitch.Config{})
			g := attach(t, sw, 2)
			g.serve(t, 80, echo)
			c := client.New(g.http(), gatewayAPI)
			if who == "the host" {
				api := httptest.NewServer(sw.Handler())
				defer api.Close()
				c = client.New(api.Client(), api.URL)
			}
			all, err := c.List()
			require.NoError(t, err)
			require.Empty(t, all)
			local := freePort(t)
			req := &types.ExposeRequest{Local: local, Remote: ":80", Protocol: "TCP"}
			require.NoError(t, c.Expose(req))
			all, err = c.List()
			require.NoError(t, err)
			require.Equal(t, []types.ExposeRequest{{Local: local, Remote: "192.168.127.2:80", Protocol: types.TCP}}, all)
			require.Equal(t, "hello", hostExchange(t, local, "hello"))

			err = c.Expose(req)
			require.ErrorContains(t, err, "tcp "+local, "FAILURES 30: protocol and address")
			require.ErrorContains(t, err, who, "and owner")

			require.NoError(t, c.Unexpose(&types.UnexposeRequest{Local: local, Protocol: "tcp"}))
			require.ErrorContains(t, c.Unexpose(&types.UnexposeRequest{Local: local, Protocol: "tcp"}), "tcp "+local)
			require.NoError(t, c.Expose(req), "the same again")
			require.NoError(t, c.Unexpose(&types.UnexposeRequest{Local: local, Protocol: "tcp"}))

			require.NoError(t, c.Expose(&types.ExposeRequest{Local: local, Remote: ":80"}), "an empty protocol is tcp")
			require.NoError(t, c.Expose(&types.ExposeRequest{Local: local, Remote: ":80", Protocol: "udp"}))
		})
	}
}

func TestHostAPI(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	api := httptest.NewServer(sw.Handler())
	defer api.Close()
	g := attachRaw(t, sw, 2)
	c := client.New(api.Client(), api.URL)
	want := map[string]string{"192.168.127.1": "5a:94:ef:e4:0c:dd", "192.168.127.2": "5a:94:ef:e4:0c:ee"}
	leases, err := c.ListDHCPLeases()
	require.NoError(t, err)
	require.Equal(t, want, leases)
	g.lease(t)
	for path, part := range map[string]string{
		"/leases":           `"192.168.127.2":"5a:94:ef:e4:0c:ee"`,
		"/cam":              `"5a:94:ef:e4:0c:ee":1`,
		"/stats":            `"BytesReceived":`,
		"/services/dns/all": `"docker.internal."`,
	} {
		status, body := call(t, api.Client(), http.MethodGet, api.URL+path, "")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, body, part)
	}
	require.NoError(t, sw.Close())
	status, body := call(t, api.Client(), http.MethodPost, api.URL+"/services/forwarder/expose", `{"local":"127.0.0.1:0","remote":":80"}`)
	require.Equal(t, http.StatusServiceUnavailable, status, body)
}

// What a guest may not, on gateway:80.
func TestGuestAPIRefuses(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g, other := attach(t, sw, 2), attach(t, sw, 3)
	hosts := expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	local := freePort(t)
	require.NoError(t, client.New(other.http(), gatewayAPI).Expose(&types.ExposeRequest{Local: local, Remote: ":80"}))
	// FAILURES 37: the file that gvisor-tap-vsock would have deleted.
	file := filepath.ToSlash(filepath.Join(t.TempDir(), "precious"))
	require.NoError(t, os.WriteFile(file, []byte("data"), 0o600))

	const expose, unexpose = "POST /services/forwarder/expose", "POST /services/forwarder/unexpose"
	for name, tc := range map[string]struct {
		request, body string
		status        int
		says          string
	}{
		"unix":                    {expose, `{"protocol":"unix","local":"` + file + `","remote":"tcp://192.168.127.2:80"}`, 400, "unix"},
		"npipe":                   {expose, `{"protocol":"npipe","local":"\\\\.\\pipe\\x","remote":"tcp://192.168.127.2:80"}`, 400, "npipe"},
		"local is a file":         {expose, `{"protocol":"tcp","local":"` + file + `","remote":":80"}`, 400, "local"},
		"remote outside":          {expose, `{"local":"127.0.0.1:0","remote":"198.51.100.7:80"}`, 400, "192.168.127.0/24"},
		"remote is loopback":      {expose, `{"local":"127.0.0.1:0","remote":"127.0.0.1:80"}`, 400, "192.168.127.0/24"},
		"remote is the gateway":   {expose, `{"local":"127.0.0.1:0","remote":"192.168.127.1:80"}`, 400, "no guest"},
		"remote is the alias":     {expose, `{"local":"127.0.0.1:0","remote":"192.168.127.254:22"}`, 400, "no guest"},
		"remote is the network":   {expose, `{"local":"127.0.0.1:0","remote":"192.168.127.0:22"}`, 400, "no guest"},
		"remote is everybody":     {expose, `{"local":"127.0.0.1:0","remote":"192.168.127.255:22"}`, 400, "no guest"},
		"unexpose the host's":     {unexpose, `{"protocol":"tcp","local":"` + hosts.Local + `"}`, 403, "the host"},
		"unexpose another's":      {unexpose, `{"protocol":"tcp","local":"` + local + `"}`, 403, "guest 192.168.127.3"},
		"expose what another has": {expose, `{"protocol":"tcp","local":"` + local + `","remote":"192.168.127.3:80"}`, 409, "guest 192.168.127.3"},
		"unexpose nothing":        {unexpose, `{"protocol":"tcp","local":"127.0.0.1:1"}`, 404, "127.0.0.1:1"},
		"no JSON":                 {expose, `local=127.0.0.1:80`, 400, "JSON"},
		"other JSON":              {expose, `[1,2,3]`, 400, "JSON"},
		"no body":                 {expose, ``, 400, "JSON"},
		"body too large":          {expose, `{"local":"` + strings.Repeat("x", 17<<10) + `"}`, 400, "too large"},
		"method":                  {"GET /services/forwarder/expose", ``, 405, ""},
		"other method":            {"POST /services/forwarder/all", ``, 405, ""},
		"DNS":                     {"GET /services/dns/all", ``, 404, ""},
		"DNS, add":                {"POST /services/dns/add", `{"Name":"x."}`, 404, ""},
		"leases":                  {"GET /services/dhcp/leases", ``, 404, ""},
		"leases, short":           {"GET /leases", ``, 404, ""},
		"stats":                   {"GET /stats", ``, 404, ""},
		"CAM":                     {"GET /cam", ``, 404, ""},
		"connect":                 {"POST /connect", ``, 404, ""},
		"root":                    {"GET /", ``, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(tc.request, " ")
			status, body := call(t, g.http(), method, gatewayAPI+path, tc.body)
			require.Equal(t, tc.status, status, body)
			require.Contains(t, body, tc.says)
			require.Len(t, sw.Forwards(), 2)
		})
	}
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "data", string(content))
}

// A guest that asks too often is told so; others are not held up.
func TestGuestAPIRate(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g, other := attach(t, sw, 2), attach(t, sw, 3)
	c := g.http()
	c.Transport.(*http.Transport).DisableKeepAlives = false
	defer c.CloseIdleConnections()
	status := 0
	for i := 0; status != http.StatusTooManyRequests; i++ {
		require.Less(t, i, 100_000, "never refused")
		status, _ = call(t, c, http.MethodGet, gatewayAPI+"/services/forwarder/all", "")
	}
	status, _ = call(t, other.http(), http.MethodGet, gatewayAPI+"/services/forwarder/all", "")
	require.Equal(t, http.StatusOK, status)
}

// A guest's forwards are bounded.
func TestGuestForwardsAreBounded(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	hc := g.http()
	hc.Transport.(*http.Transport).DisableKeepAlives = false
	defer hc.CloseIdleConnections()
	c := client.New(hc, gatewayAPI)
	var err error
	for i := 0; err == nil; i++ {
		require.LessOrEqual(t, i, 10_000, "no bound")
		err = c.Expose(&types.ExposeRequest{Local: "127.0.0.1:0", Remote: ":80"})
		if err != nil && strings.Contains(err.Error(), "too many requests") {
			err = nil
		}
	}
	require.ErrorContains(t, err, "1024")
	require.Len(t, sw.Forwards(), 1024)
	expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
}

// The hook sees a forward with everything filled in; it may deny and change it.
func TestAllowExpose(t *testing.T) {
	seen := make(chan hostswitch.Forward, 10)
	errDenied := errors.New("not on this machine")
	change := func(*hostswitch.Forward) error { return nil }
	sw := newSwitch(t, hostswitch.Config{AllowExpose: func(_ context.Context, f *hostswitch.Forward) error {
		seen <- *f
		return change(f)
	}})
	g := attach(t, sw, 3)
	c := client.New(g.http(), gatewayAPI)
	local := freePort(t)
	require.NoError(t, c.Expose(&types.ExposeRequest{Local: local, Remote: ":80"}))
	require.Equal(t, hostswitch.Forward{Protocol: "tcp", Local: local, Remote: "192.168.127.3:80"}, <-seen)

	change = func(*hostswitch.Forward) error { return errDenied }
	status, body := call(t, g.http(), http.MethodPost, gatewayAPI+"/services/forwarder/expose", `{"local":"0.0.0.0:0","remote":":80"}`)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, errDenied.Error())
	require.Equal(t, "0.0.0.0:0", (<-seen).Local)

	other := freePort(t)
	change = func(f *hostswitch.Forward) error { f.Local = other; return nil }
	require.NoError(t, c.Expose(&types.ExposeRequest{Local: "0.0.0.0:0", Remote: ":80"}))
	require.Contains(t, sw.Forwards(), hostswitch.Forward{Protocol: "tcp", Local: other, Remote: "192.168.127.3:80"})
	<-seen

	require.ErrorContains(t, c.Expose(&types.ExposeRequest{Local: "nonsense", Remote: ":80"}), "nonsense")
	require.Empty(t, seen, "what is invalid is not asked about")
	expose(t, sw, hostswitch.Forward{Local: "127.0.0.1:0", Remote: ":80"})
	require.Empty(t, seen, "nor what the host itself does")
}

// A guest that comes back has what it had; while it is there, asking twice is an
// error, and so is asking for what another has.
func TestForwardTakeOver(t *testing.T) {
	sw := newSwitch(t, hostswitch.Config{})
	g := attach(t, sw, 2)
	req := &types.ExposeRequest{Local: freePort(t), Remote: ":80", Protocol: "tcp"}
	require.NoError(t, client.New(g.http(), gatewayAPI).Expose(req))
	require.ErrorContains(t, client.New(g.http(), gatewayAPI).Expose(req), "guest 192.168.127.2", "within one session")
	g.unplug()

	again := attach(t, sw, 2)
	c := client.New(again.http(), gatewayAPI)
	require.NoError(t, c.Expose(req), "in a new session")
	require.Len(t, sw.Forwards(), 1)
	require.ErrorContains(t, c.Expose(req), "already in use", "twice in that one")
	require.ErrorContains(t, c.Expose(&types.ExposeRequest{Local: req.Local, Remote: ":81"}), "already in use", "another forward")
	again.serve(t, 80, echo)
	require.Equal(t, "x", hostExchange(t, req.Local, "x"))

	other := attach(t, sw, 3)
	require.ErrorContains(t, client.New(other.http(), gatewayAPI).Expose(req), "guest 192.168.127.2", "by another guest")
	require.NoError(t, c.Unexpose(&types.UnexposeRequest{Local: req.Local, Protocol: "tcp"}))
}
