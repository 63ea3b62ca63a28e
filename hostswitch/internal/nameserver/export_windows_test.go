// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// DNSAPI is Windows' API with other functions in their places.
func DNSAPI(query, cancel, free uintptr) Lookup { return dnsapiLookup(dnsapi{query, cancel, free}.ask) }

// RegistryString is what reads the search lists.
var RegistryString = registryString

// LoopbackAdapters counts this machine's adapters that are taken for loopback ones,
// and the others.
func LoopbackAdapters() (loopback, others int, err error) {
	adapters, err := readAdapters()
	for _, a := range adapters {
		if a.loopback {
			loopback++
		} else {
			others++
		}
	}
	return loopback, others, err
}

// What Windows is handed.
type (
	DNSQueryRequest = dnsQueryRequest
	DNSQueryResult  = dnsQueryResult
	DNSQueryCancel  = dnsQueryCancel
)

// Asked returns what is asked for.
func (r *dnsQueryRequest) Asked() (version uint32, name string, qtype uint16, options uint64) {
	return r.version, windows.UTF16PtrToString(r.name), r.qtype, r.options
}

// Completion returns the routine that Windows calls, and its parameter.
func (r *dnsQueryRequest) Completion() (routine uintptr, context unsafe.Pointer) {
	return r.complete, unsafe.Pointer(r.context)
}

// Set fills in what Windows fills in.
func (r *dnsQueryResult) Set(status int32, records *windows.DNSRecord) {
	r.status, r.records = status, records
}
