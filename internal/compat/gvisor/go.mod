// guestnet on the newest gVisor, to see early what a move would ask of us. To take a
// newer one: go get -C internal/compat/gvisor gvisor.dev/gvisor@latest
// (gVisor's importable tree is on its branch "go"; @latest finds it), then go mod tidy.
module github.com/rancher-sandbox/guestnet/internal/compat/gvisor

go 1.26.3

require github.com/rancher-sandbox/guestnet v0.0.0

require (
	github.com/google/btree v1.1.2 // indirect
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // indirect
)

replace github.com/rancher-sandbox/guestnet => ../../..
