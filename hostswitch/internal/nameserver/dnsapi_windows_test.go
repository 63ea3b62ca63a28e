// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/rancher-sandbox/guestnet/hostswitch/internal/nameserver"
	"github.com/rancher-sandbox/guestnet/internal/house"
)

const (
	pending   = 9506 // DNS_REQUEST_PENDING
	cancelled = 1223 // ERROR_CANCELLED
)

// A fakeAPI stands where dnsapi.dll has DnsQueryEx, DnsCancelQuery and
// DnsRecordListFree. Wine has only a stub of the first and none of the second: this
// proves what we make of the ABI, and of what Microsoft documents of it.
type fakeAPI struct {
	query  func(*nameserver.DNSQueryRequest, *nameserver.DNSQueryResult, *nameserver.DNSQueryCancel) uintptr
	cancel func(*nameserver.DNSQueryCancel)
	free   func(list *windows.DNSRecord, kind uintptr)
}

func (f *fakeAPI) lookup() nameserver.Lookup {
	return nameserver.DNSAPI(
		windows.NewCallback(func(q *nameserver.DNSQueryRequest, r *nameserver.DNSQueryResult, c *nameserver.DNSQueryCancel) uintptr {
			return f.query(q, r, c)
		}),
		windows.NewCallback(func(c *nameserver.DNSQueryCancel) uintptr { f.cancel(c); return 0 }),
		windows.NewCallback(func(list *windows.DNSRecord, kind uintptr) uintptr { f.free(list, kind); return 0 }),
	)
}

// complete ends a query on a thread of the system's pool, which Go does not know.
func complete(q *nameserver.DNSQueryRequest) {
	routine, parameter := q.Completion()
	ok, _, err := windows.NewLazySystemDLL("kernel32.dll").NewProc("QueueUserWorkItem").Call(routine, uintptr(parameter), 0)
	if ok == 0 {
		panic(err)
	}
}

func hostA() (*windows.DNSRecord, dns.Question) {
	name, _ := windows.UTF16PtrFromString("host.test")
	r := &windows.DNSRecord{Name: name, Type: dns.TypeA, Length: 4, Dw: windows.DnsSectionAnswer, Ttl: 7}
	copy(r.Data[:], []byte{10, 0, 0, 1})
	return r, dns.Question{Name: "host.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
}

func TestDnsQueryEx(t *testing.T) {
	records, q := hostA()
	freed := 0
	f := &fakeAPI{free: func(list *windows.DNSRecord, kind uintptr) {
		require.Same(t, records, list)
		require.EqualValues(t, 1, kind, "DnsFreeRecordList")
		freed++
	}}
	lookup := f.lookup()
	check := func(req *nameserver.DNSQueryRequest) {
		version, name, qtype, options := req.Asked()
		require.EqualValues(t, 1, version)
		require.Equal(t, "host.test", name)
		require.Equal(t, dns.TypeA, qtype)
		require.EqualValues(t, 0x1000, options, "DNS_QUERY_TREAT_AS_FQDN")
	}
	for name, query := range map[string]func(*nameserver.DNSQueryRequest, *nameserver.DNSQueryResult, *nameserver.DNSQueryCancel) uintptr{
		"at once": func(req *nameserver.DNSQueryRequest, res *nameserver.DNSQueryResult, _ *nameserver.DNSQueryCancel) uintptr {
			check(req)
			res.Set(0, records)
			return 0
		},
		"later": func(req *nameserver.DNSQueryRequest, res *nameserver.DNSQueryResult, _ *nameserver.DNSQueryCancel) uintptr {
			check(req)
			res.Set(0, records)
			complete(req)
			return pending
		},
	} {
		t.Run(name, func(t *testing.T) {
			freed, f.query = 0, query
			rrs, err := lookup(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, []string{"host.test. 7 IN A 10.0.0.1"}, texts(rrs))
			require.Equal(t, 1, freed)
		})
	}
	f.query = func(req *nameserver.DNSQueryRequest, res *nameserver.DNSQueryResult, _ *nameserver.DNSQueryCancel) uintptr {
		res.Set(9003, nil)
		complete(req)
		return pending
	}
	_, err := lookup(t.Context(), q)
	require.ErrorIs(t, err, nameserver.ErrNoName)
}

// A query whose context ends is cancelled, and Windows done with it on return.
func TestDnsQueryExIsCancelled(t *testing.T) {
	records, q := hostA()
	var req *nameserver.DNSQueryRequest
	var res *nameserver.DNSQueryResult
	var handle *nameserver.DNSQueryCancel
	var freed atomic.Int32
	asked, cancelling := make(chan struct{}), make(chan struct{})
	f := &fakeAPI{
		query: func(r *nameserver.DNSQueryRequest, s *nameserver.DNSQueryResult, c *nameserver.DNSQueryCancel) uintptr {
			req, res, handle = r, s, c
			close(asked)
			return pending
		},
		cancel: func(c *nameserver.DNSQueryCancel) {
			require.Same(t, handle, c)
			close(cancelling)
		},
		free: func(*windows.DNSRecord, uintptr) { freed.Add(1) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	lookup := f.lookup()
	go func() {
		_, err := lookup(ctx, q)
		done <- err
	}()
	<-asked
	cancel()
	<-cancelling
	runtime.GC() // which must not take what Windows refers to
	require.Empty(t, done)
	res.Set(cancelled, records) // partial
	complete(req)
	require.ErrorIs(t, <-done, context.Canceled)
	require.EqualValues(t, 1, freed.Load())
}

// DNS_RECORD as a dnsapi.dll lays it out: wine's DnsQuery_W, which makes the same
// lists, stands for DnsQueryEx. It asks a server of the test's, at port 53: the one of
// wine's resolv.conf, for wine asks and lists that one ever after.
func TestDNSRecordsOfWindows(t *testing.T) {
	const server = "127.77.53.1"
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", server+":53")
	if err != nil {
		house.Missing(t, fmt.Sprintf("port 53 of %s must be free: %v", server, err))
	}
	pc, err := lc.ListenPacket(t.Context(), "udp", server+":53")
	require.NoError(t, err)
	u := newUpstreamAt(t, upstreamZone+systemZone, ln, pc)

	dll := windows.NewLazySystemDLL("dnsapi.dll")
	dnsQuery, free := dll.NewProc("DnsQuery_W"), dll.NewProc("DnsRecordListFree")
	lists := 0
	f := &fakeAPI{
		query: func(req *nameserver.DNSQueryRequest, res *nameserver.DNSQueryResult, _ *nameserver.DNSQueryCancel) uintptr {
			_, name, qtype, _ := req.Asked()
			wide, err := windows.UTF16PtrFromString(name)
			require.NoError(t, err)
			servers := struct { // IP4_ARRAY
				n    uint32
				addr [4]byte
			}{1, [4]byte{127, 77, 53, 1}}
			var list *windows.DNSRecord
			const bypassCache = 0x8
			status, _, _ := syscall.SyscallN(dnsQuery.Addr(), uintptr(unsafe.Pointer(wide)), uintptr(qtype), bypassCache,
				uintptr(unsafe.Pointer(&servers)), uintptr(unsafe.Pointer(&list)), 0)
			res.Set(int32(status), list)
			if list != nil {
				lists++
			}
			return status
		},
		free: func(list *windows.DNSRecord, kind uintptr) {
			lists--
			_, _, _ = free.Call(uintptr(unsafe.Pointer(list)), kind)
		},
	}
	lookup := f.lookup()
	for _, q := range []struct {
		name  string
		qtype uint16
	}{
		{"www.example.test.", dns.TypeA},
		{"www.example.test.", dns.TypeAAAA},
		{"alias.example.test.", dns.TypeA},
		{"alias.example.test.", dns.TypeCNAME},
		{"example.test.", dns.TypeMX},
		{"example.test.", dns.TypeNS},
		{"example.test.", dns.TypeSOA},
		{"long.example.test.", dns.TypeTXT},
		{"_x._tcp.example.test.", dns.TypeSRV},
		{"10.2.0.192.in-addr.arpa.", dns.TypePTR},
	} {
		got, err := lookup(t.Context(), dns.Question{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET})
		require.NoError(t, err, "%s %d", q.name, q.qtype)
		want := ask(t, "udp", u.addr, query(q.name, q.qtype))
		require.ElementsMatch(t, texts(want.Answer), texts(got))
		require.Zero(t, lists, "a list was not freed")
	}
}

// onlyWine ends t where the network is not the one of .ci/wine, nor the registry the
// test's to write.
func onlyWine(t *testing.T) {
	t.Helper()
	if !house.OnWine() {
		house.Missing(t, "writes to the registry and knows the network of make test-windows, which is under wine")
	}
}

// The adapters of this machine; wine gives each the servers and domains of
// resolv.conf.
func TestHostIsRead(t *testing.T) {
	onlyWine(t)
	host := nameserver.NewSystem(nameserver.SystemConfig{})
	file := nameserver.NewSystem(nameserver.SystemConfig{ResolvConf: `Z:\etc\resolv.conf`})
	require.NotEmpty(t, file.Servers())
	require.Equal(t, file.Servers(), host.Servers())
	require.NotEmpty(t, file.SearchDomains())
	require.Equal(t, file.SearchDomains(), host.SearchDomains())
	loopback, others, err := nameserver.LoopbackAdapters()
	require.NoError(t, err)
	require.Equal(t, 1, loopback)
	require.Equal(t, 2, others, "the ends of .ci/wine's pair")
}

// The policy's list comes before that of all connections, and both before the domain
// of the computer.
func TestSearchListOfThisHost(t *testing.T) {
	onlyWine(t)
	const parameters = `SYSTEM\CurrentControlSet\Services\Tcpip\Parameters`
	for _, step := range []struct{ path, name, value, want string }{
		{parameters, "Domain", "computer.test", "computer.test"},
		{parameters, "SearchList", "all.test", "all.test"},
		{`SOFTWARE\Policies\Microsoft\Windows NT\DNSClient`, "SearchList", "policy.test", "policy.test"},
	} {
		key, _, err := registry.CreateKey(registry.LOCAL_MACHINE, step.path, registry.ALL_ACCESS)
		require.NoError(t, err)
		before, _, err := key.GetStringValue(step.name)
		t.Cleanup(func() {
			if err != nil {
				require.NoError(t, key.DeleteValue(step.name))
			} else {
				require.NoError(t, key.SetStringValue(step.name, before))
			}
			require.NoError(t, key.Close())
		})
		require.NoError(t, key.SetStringValue(step.name, step.value))
		got := nameserver.NewSystem(nameserver.SystemConfig{}).SearchDomains()
		require.NotEmpty(t, got)
		require.Equal(t, step.want, got[0], step.path)
	}
}

func TestSearchListIsInTheRegistry(t *testing.T) {
	const path = `Software\guestnet-test`
	key, _, err := registry.CreateKey(registry.CURRENT_USER, path, registry.ALL_ACCESS)
	require.NoError(t, err)
	defer func() { require.NoError(t, registry.DeleteKey(registry.CURRENT_USER, path)) }()
	defer func() { require.NoError(t, key.Close()) }()
	require.NoError(t, key.SetStringValue("SearchList", "a.test,b.test"))
	require.NoError(t, key.SetDWordValue("Number", 1))
	read := func(path, name string) string { return nameserver.RegistryString(registry.CURRENT_USER, path, name) }
	require.Equal(t, "a.test,b.test", read(path, "SearchList"))
	require.Empty(t, read(path, "Number"))
	require.Empty(t, read(path, "Domain"))
	require.Empty(t, read(path+`\none`, "SearchList"))
}
