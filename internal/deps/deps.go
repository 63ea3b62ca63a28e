//go:build ignoredeps

package deps

import (
	_ "github.com/Microsoft/go-winio"
	_ "github.com/containers/gvisor-tap-vsock/pkg/client"
	_ "github.com/containers/gvisor-tap-vsock/pkg/types"
	_ "github.com/gopacket/gopacket/pcapgo"
	_ "github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	_ "github.com/mdlayher/vsock"
	_ "github.com/miekg/dns"
	_ "github.com/stretchr/testify/require"
	_ "github.com/vishvananda/netlink"
	_ "github.com/vishvananda/netns"
	_ "go.uber.org/goleak"
	_ "golang.org/x/net/icmp"
	_ "golang.org/x/net/nettest"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)
