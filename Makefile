# Needs Go, git and make; `make test` brings the rest on Debian. `make` alone lists the targets.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS      = -s -w -X main.version=$(VERSION)
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 10s

# Debian keeps servers where the PATH of ordinary users does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help build demo check lint test peers bench fuzz sim sites clean

help: ## list the targets
	@echo 'Spook Gateway. Targets:'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/spookgw, static, without cgo
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/spookgw ./gateway/spookgw

demo: build ## every protocol on loopback over the shipped mappings; Ctrl-C ends it
	@exec bin/spookgw demo

check: lint ## what each commit must pass: gofmt, vet, staticcheck, the short tests
	@$(GO) run ./integration/report -short

lint:
	@echo 'gofmt, vet, staticcheck'
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo 'not formatted (run gofmt -w):'; echo "$$unformatted"; exit 1; fi
	@$(GO) vet ./...
	@$(GO) run $(STATICCHECK) ./...

test: peers build lint ## everything, with real peers; installs those on Debian (PEERS=skip: does not)
	@$(GO) run ./integration/report

peers:
	@sh integration/peers/install.sh

bench: ## our figures beside nginx, haproxy, pgbouncer, redis, etcd and raw pebble in one run
	@sh integration/peers/install.sh bench
	@$(GO) run ./integration/bench

fuzz: ## each fuzz target for FUZZTIME (10s)
	@grep -rn --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' . | sort | \
	while IFS=: read -r file line func; do \
		name=$${func#func }; echo "$$(dirname $$file) $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)" </dev/null || exit 1; \
	done

sim: ## a million simulated histories of the engine; SEED=N replays one
	@$(GO) test ./engine/sim -run '^TestSim$$' -v -timeout 0 $(if $(SEED),-seed $(SEED),-histories 1000000)

sites: peers ## two sites with real servers, 50 rounds of random cuts (ROUNDS=50); SEED=N replays
	@ROUNDS=$(or $(ROUNDS),50) $(if $(SEED),SEED=$(SEED)) $(GO) test -race ./integration -run '^TestSite' -v -timeout 0 -count=1

clean: ## remove what was built
	rm -rf bin
	$(GO) clean -testcache
