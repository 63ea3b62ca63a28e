// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package subnet_test

import (
	"fmt"

	"github.com/rancher-sandbox/guestnet/subnet"
)

func ExampleValidateSubnet() {
	for _, cidr := range []string{"10.20.30.0/24", "10.20.30.1/24"} {
		s, err := subnet.ValidateSubnet(cidr)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(s.Gateway, s.Guest, s.HostAlias)
	}
	// Output:
	// 10.20.30.1 10.20.30.2 10.20.30.254
	// subnet: invalid subnet "10.20.30.1/24": it has bits set behind its length; write 10.20.30.0/24
}
