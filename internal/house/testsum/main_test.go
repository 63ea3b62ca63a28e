// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lacks is what a test says that wine cannot do.
func lacks(test, what string) string {
	return fmt.Sprintf(`{"Action":"output","Package":"p","Test":%[1]q,"Output":"    t.go:2: wine lacks %[2]s\n"}
{"Action":"skip","Package":"p","Test":%[1]q}
`, test, what)
}

func TestSummary(t *testing.T) {
	const (
		start = `{"Action":"run","Package":"p","Test":"T"}
{"Action":"output","Package":"p","Test":"T","Output":"=== RUN   T\n"}
{"Action":"output","Package":"p","Test":"T","Output":"    t.go:1: said\n"}
`
		passed = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
		failed = `{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	)
	for name, tc := range map[string]struct {
		in, out string
		options options
		ok      bool
	}{
		"passed": {
			start + `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + passed,
			"ok  \tp\t0.1s\n1 passed, 0 failed, 0 skipped\n", options{}, true,
		},
		"failed": {
			start + `{"Action":"fail","Package":"p","Test":"T"}` + "\n" + failed,
			"    t.go:1: said\nFAIL\tp\t0.1s\n0 passed, 1 failed, 0 skipped\n", options{}, false,
		},
		"crashed before a result": {
			start + failed,
			"FAIL\tp\t0.1s\n    t.go:1: said\n0 passed, 0 failed, 0 skipped\n", options{}, false,
		},
		"skipped": {
			start + `{"Action":"skip","Package":"p","Test":"T"}` + "\n" + passed,
			"    t.go:1: said\nok  \tp\t0.1s\n0 passed, 0 failed, 1 skipped\n", options{}, true,
		},
		"skipped where that is not allowed": {
			start + `{"Action":"skip","Package":"p","Test":"T"}` + "\n" + passed,
			"    t.go:1: said\nok  \tp\t0.1s\n0 passed, 0 failed, 1 skipped\n", options{strict: true}, false,
		},
		"skipped for what wine lacks": {
			start + lacks("T", "a purpose") + lacks("U", "wings") + lacks("V", "a purpose") + passed,
			"ok  \tp\t0.1s\n0 passed, 0 failed, 3 skipped\n2 skipped: wine lacks a purpose\n1 skipped: wine lacks wings\n", options{strict: true, wine: true}, true,
		},
		"skipped for that and another reason": {
			start + `{"Action":"skip","Package":"p","Test":"T"}` + "\n" + lacks("U", "wings") + passed,
			"    t.go:1: said\nok  \tp\t0.1s\n0 passed, 0 failed, 2 skipped\n1 skipped: wine lacks wings\n", options{strict: true, wine: true}, false,
		},
		"does not build": {
			`{"ImportPath":"p","Action":"build-output","Output":"p.go:1: no\n"}
{"ImportPath":"p","Action":"build-fail"}` + "\n" + passed,
			"p.go:1: no\nok  \tp\t0.1s\n0 passed, 0 failed, 0 skipped\n", options{}, false,
		},
		"not JSON": {
			"go: cannot\n" + start + `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + passed,
			"go: cannot\nok  \tp\t0.1s\n1 passed, 0 failed, 0 skipped\n", options{}, true,
		},
		"only a package without tests": {
			`{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p"}` + "\n",
			"?   \tp\t[no test files]\n0 passed, 0 failed, 0 skipped\n", options{}, false,
		},
		"skipped for what wine lacks, elsewhere": {
			lacks("T", "wings") + passed,
			"    t.go:2: wine lacks wings\nok  \tp\t0.1s\n0 passed, 0 failed, 1 skipped\n", options{strict: true}, false,
		},
		"no test": {passed, "ok  \tp\t0.1s\n0 passed, 0 failed, 0 skipped\n", options{}, false},
		"each": {
			start + `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + passed,
			"ok  \tp\t0.1s\n1 passed, 0 failed, 0 skipped\n", options{each: true}, true,
		},
		"each but one": {
			start + `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + passed + `{"Action":"pass","Package":"q"}` + "\n",
			"ok  \tp\t0.1s\nno test ran in q\n1 passed, 0 failed, 0 skipped\n", options{each: true}, false,
		},
		"each, but not again": {
			start + `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + passed + passed,
			"ok  \tp\t0.1s\nok  \tp\t0.1s\nno test ran in p\n1 passed, 0 failed, 0 skipped\n", options{each: true}, false,
		},
		"nothing": {"", "0 passed, 0 failed, 0 skipped\n", options{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(tc.in), &out, tc.options)
			require.Equal(t, tc.out, out.String())
			require.Equal(t, tc.ok, err == nil, "%v", err)
		})
	}
}
