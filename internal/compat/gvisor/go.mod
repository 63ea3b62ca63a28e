// guestnet on the newest gVisor, to see early what a move would ask of us. To take a
// newer one: go get -C internal/compat/gvisor gvisor.dev/gvisor@latest
// (gVisor's importable tree is on its branch "go"; @latest finds it), then go mod tidy.
module github.com/rancher-sandbox/guestnet/internal/compat/gvisor

go 1.26.3

require github.com/rancher-sandbox/guestnet v0.0.0

require (
	github.com/Microsoft/go-winio v0.6.4 // indirect
	github.com/containers/gvisor-tap-vsock v0.8.9 // indirect
	github.com/google/btree v1.1.2 // indirect
	github.com/gopacket/gopacket v1.7.7 // indirect
	github.com/insomniacslk/dhcp v0.0.0-20260901064844-234b97448fae // indirect
	github.com/josharian/native v1.1.0 // indirect
	github.com/linuxkit/virtsock v0.0.0-20241009230534-cb6a20cc0422 // indirect
	github.com/mdlayher/packet v1.1.2 // indirect
	github.com/mdlayher/socket v0.8.0 // indirect
	github.com/mdlayher/vsock v1.4.0 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	github.com/pierrec/lz4/v4 v4.1.14 // indirect
	github.com/u-root/uio v0.0.0-20240224005618-d2acac8f3701 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // indirect
)

replace github.com/rancher-sandbox/guestnet => ../../..
