// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Windows' calls fail for a table without rows, as that of routes is without a
// network; any other failure is one.
func TestHostPrefixesOfEmptyTables(t *testing.T) {
	type table func() ([]netip.Prefix, error)
	rows := func(prefixes ...string) table {
		return func() (all []netip.Prefix, err error) {
			for _, p := range prefixes {
				all = append(all, netip.MustParsePrefix(p))
			}
			return all, nil
		}
	}
	fails := func(err error) table { return func() ([]netip.Prefix, error) { return nil, err } }
	empty, broken := fails(os.NewSyscallError("GetIpForwardTable2", noRows)), errors.New("broken")
	for name, tc := range map[string]struct {
		addrs, dsts table
		want        string
		err         error
	}{
		"rows":             {rows("10.0.0.1/24"), rows("10.1.0.0/16"), "10.0.0.0/24, 10.1.0.0/16", nil},
		"no routes":        {rows("10.0.0.1/24"), empty, "10.0.0.0/24", nil},
		"no addresses":     {empty, rows("10.1.0.0/16"), "10.1.0.0/16", nil},
		"neither":          {empty, empty, "", nil},
		"broken routes":    {rows("10.0.0.1/24"), fails(broken), "", broken},
		"broken addresses": {fails(broken), empty, "", broken},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := hostPrefixes(tc.addrs, tc.dsts)
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.want, list(got))
		})
	}
	require.EqualValues(t, 1168, noRows, "ERROR_NOT_FOUND")
}
