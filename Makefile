# `make help` lists the targets. `make test` is what has to pass; .ci/run adds
# only that nothing may be skipped.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
FUZZTIME    ?= 10s
SYSTEMS     := linux windows darwin
MODULES     := . tools internal/compat/gvtv internal/compat/gvisor
# One line a step, with the time since make started, so that a slow step is seen.
STEP        = @printf '\n== %s (%ds)\n' "$@" $$(($$(date +%s) - $(START)))
START       := $(shell date +%s)

.NOTPARALLEL:
.PHONY: help build test test-unit test-race setup vet lint compat cross fuzz tidy-check fmt clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## compile everything for this system
	go build ./...

test: setup vet lint compat test-race ## everything that a change has to pass

test-unit: ## quick tests: no race detector, cached
	go test ./...

test-race: ## all tests with the race detector; with CI=true a skipped test is a failure
	$(STEP)
	go test -race -timeout 8m -json ./... | go run ./internal/house/testsum

setup: ## install what the integration tests drive (Debian, as root)
	$(STEP)
	@.ci/setup

vet: ## go vet for every system
	$(STEP)
	for os in $(SYSTEMS); do GOOS=$$os CGO_ENABLED=0 go vet ./...; done

lint: bin/golangci-lint ## the linters of .golangci.yml for every system
	$(STEP)
	for os in $(SYSTEMS); do GOOS=$$os CGO_ENABLED=0 $< run; done

bin/golangci-lint: tools/go.mod tools/go.sum
	$(STEP)
	CGO_ENABLED=0 go build -C tools -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

compat: ## builds that importers have: all of gvisor-tap-vsock beside us, and the newest gVisor
	$(STEP)
	for module in gvtv gvisor; do for os in $(SYSTEMS); do \
		GOOS=$$os CGO_ENABLED=0 go build -C internal/compat/$$module ./...; \
	done; done

cross: ## compile for every system and architecture
	for os in $(SYSTEMS); do for arch in amd64 arm64; do \
		GOOS=$$os GOARCH=$$arch CGO_ENABLED=0 go build ./...; \
	done; done

fuzz: ## run each fuzz target for FUZZTIME (10s)
	grep -r --include='*_test.go' -oE '^func Fuzz\w+' . | sed 's/:func / /' | while read -r file target; do \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	done

tidy-check: ## every go.mod is as `go mod tidy` leaves it
	for module in $(MODULES); do go mod tidy -C $$module -diff; done

fmt: ## gofmt everything
	gofmt -w .

clean: ## remove what the targets above left
	rm -rf bin
