# `make help` lists the targets. `make test` is what has to pass; .ci/run adds
# only that nothing may be skipped.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
# ip and udhcpc live here on Debian, where not every PATH leads.
export PATH := $(PATH):/usr/sbin:/sbin

FUZZTIME ?= 10s
SYSTEMS  := linux windows darwin
# Of the tests that are not for this machine but for those of internal/vmtest, and
# of the one that takes two of them.
TAGS     := vmtest,pair
MODULES   = $(patsubst %/,%,$(dir $(shell git ls-files '*go.mod')))
LINTER   := github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# A heading for each step, with the seconds since make began.
START := $(shell date +%s)
STEP   = @printf '\n== %s (at %d s)\n' $@ $$(($$(date +%s) - $(START)))

# One after the other, whatever -j says: most of it keeps all cores busy by itself.
ifndef TOGETHER
.NOTPARALLEL:
endif
.PHONY: help build test test-unit test-vm test-windows bench bench-network bench-quick bench-setup bench-relay test-race test-soak test-elsewhere setup vet lint compat cross fuzz tidy tidy-check fmt clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## /\1	/p' Makefile | expand -t 14

build: ## compile everything for this system
	go build ./...

# What go vet finds, the linters find: govet is among them.
test: setup lint compat cross test-race test-elsewhere ## all that a change has to pass

# Both wait a lot, the one for its machines and the other for its clocks.
test-elsewhere:
	@$(MAKE) --no-print-directory -j 2 TOGETHER=yes START=$(START) test-windows test-vm

test-unit: ## the tests without the race detector, cached
	go test ./...

test-vm: ## both ends over real AF_VSOCK in two machines under QEMU, 2 to 5 minutes
	$(STEP)
	go test -tags pair -run TwoMachines -count 1 -timeout 10m -json ./internal/vmtest | go run ./internal/house/testsum

test-soak: ## a gigabyte by every path, and guests that crash, in full; says what it took (as root)
	$(STEP)
	go test -count 1 -timeout 20m -v -run 'TestRealGuest/(Integrity|Loss|.*Restart)' ./internal/e2e -soak

# With the race detector, which takes cgo: the network itself, and what has unsafe
# code, whose pointers it checks.
RACE_WINDOWS := CGO_ENABLED=1 CC=x86_64-w64-mingw32-gcc .ci/wine go test -race -count 1 -timeout 8m -json
test-windows: setup ## the tests for Windows under wine, 2 to 5 minutes (Debian, as root)
	$(STEP)
	@if [[ "$${CI:-}" == true ]] || .ci/wine check; then \
		.ci/wine go test -count 1 -timeout 8m -json ./... | go run ./internal/house/testsum -wine; \
		{ $(RACE_WINDOWS) -run 'TCP|Close|Host' ./hostswitch && \
			$(RACE_WINDOWS) ./discovery ./hostswitch/internal/nameserver ./internal/hvsock ./socketbridge ./subnet; \
		} | go run ./internal/house/testsum -wine -each; \
	fi

bench: bench-network bench-relay ## side by side with what else does the job, as root

bench-network: ## with gvproxy and gvforwarder, slirp4netns, pasta, and no network; half an hour
	$(STEP)
	@mkdir -p docs/bench
	go build -o bin/network ./internal/bench/network
	bin/network -out docs/bench/network

bench-quick: ## the most telling figures of bench-network, once, under a minute (as root, after bench-setup)
	$(STEP)
	go build -o bin/network ./internal/bench/network
	bin/network -rounds 1 -seconds 1 -only gvproxy,oldguest,guestnet,kernel -columns up,down,trip,connect,container

bench-setup: ## install what bench compares with (Debian, as root)
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
		iperf3 iproute2 iptables passt slirp4netns socat systemd udhcpc

bench-relay: ## with io.Copy, socat and systemd-socket-proxyd
	$(STEP)
	go build -o bin/relay ./internal/bench/relay
	bin/relay

# Twice as many packages at a time as there are processors, as a third of the time they
# wait, and those first that take longest.
test-race: ## the tests with the race detector; with CI=true none may be skipped
	$(STEP)
	go test -race -p $$(($$(getconf _NPROCESSORS_ONLN) * 2)) -count 1 -timeout 8m -json ./internal/vmtest ./hostswitch ./... | go run ./internal/house/testsum

setup: ## install what the integration tests drive (Debian, as root)
	$(STEP)
	@.ci/setup

vet: $(SYSTEMS:%=vet-%) ## go vet for every system
vet-%:
	$(STEP)
	GOOS=$* CGO_ENABLED=0 go vet -tags $(TAGS) ./...

lint: $(SYSTEMS:%=lint-%) ## the linters of .golangci.yml for every system
lint-%: bin/golangci-lint
	$(STEP)
	GOOS=$* CGO_ENABLED=0 $< run

bin/golangci-lint: tools/go.mod tools/go.sum
	$(STEP)
	CGO_ENABLED=0 go build -C tools -o ../$@ $(LINTER)

compat: $(SYSTEMS:%=compat-%) ## build beside all of gvisor-tap-vsock, and on the newest gVisor
compat-%:
	$(STEP)
	GOOS=$* CGO_ENABLED=0 go build -C internal/compat/gvtv ./...
	GOOS=$* CGO_ENABLED=0 go build -C internal/compat/gvisor ./...

# Without optimisation for arm64, without symbols, and with one program for all of
# them, as linking is most of the time where little has changed. The linters have
# compiled most of what amd64 needs.
cross: $(SYSTEMS:%=cross-%) ## compile for every system, amd64 and arm64
cross-%:
	$(STEP)
	GOOS=$* GOARCH=amd64 CGO_ENABLED=0 go list -export ./... >/dev/null
	GOOS=$* GOARCH=amd64 CGO_ENABLED=0 go build -ldflags='-s -w' -o /dev/null ./examples/hostswitch
	GOOS=$* GOARCH=arm64 CGO_ENABLED=0 go list -export -gcflags='all=-N -l' ./... >/dev/null
	GOOS=$* GOARCH=arm64 CGO_ENABLED=0 go build -ldflags='-s -w' -gcflags='all=-N -l' -o /dev/null ./examples/hostswitch

fuzz: ## run every fuzz target for FUZZTIME (10s)
	@git grep --untracked -oE '^func Fuzz\w+' -- '*_test.go' | sed 's/:func / /' | while read -r file target; do \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$${file%/*}" </dev/null; \
	done

tidy: ## go mod tidy in every module
	for module in $(MODULES); do go -C $$module mod tidy; done

tidy-check: ## every go.mod is as go mod tidy leaves it
	for module in $(MODULES); do go -C $$module mod tidy -diff; done

fmt: ## gofmt everything
	gofmt -w .

clean: ## remove what the targets above left
	rm -rf bin
