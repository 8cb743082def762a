# make help shows the targets. The two commands that matter: make demo, make test.
.DEFAULT_GOAL := help
.PHONY: help build demo test test-fast test-servers lint fmt fmt-check vet fuzz bench soak crash defences clean
SHELL := /bin/sh

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
FUZZTIME ?= 10s
SOAKTIME ?= 2m
GOFILES  = $(shell git ls-files --cached --others --exclude-standard '*.go')

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the static binary bin/nexus-broker
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/nexus-broker ./cmd/nexus-broker

demo: build ## Build it and walk through everything on one screen
	bin/nexus-broker demo

# The scripts of cmd/nexus-broker start the program 380 times and do one thing each: with the
# race detector most of their time would be that of starting. go vet is for "make vet".
test: ## Run every test, race detector on, against real servers (installs what is missing)
	@path=$$(test/install/servers.sh) && export PATH="$$path" NEXUS_TEST_SERVERS=1 GOGC=400 GORACE=atexit_sleep_ms=50 && set -x && \
		go test -race -vet=off -count=1 -timeout 25m -parallel 6 $$(go list ./... | grep -v /cmd/nexus-broker$$) && \
		go test -vet=off -count=1 ./cmd/nexus-broker && \
		go test -vet=off -count=1 -run '^TestTenThousandProvidersMove$$' ./internal/broker

test-fast: ## Run the tests that need nothing but Go
	go test ./...

test-servers: ## Install or build the servers that the tests talk to
	@test/install/servers.sh >/dev/null

lint: ## Run golangci-lint (builds it the first time)
	"$$(test/install/golangci-lint.sh)" run ./...

fmt: ## Format the code
	gofmt -w $(GOFILES)

fmt-check: ## Fail if code is not formatted
	@unformatted=$$(gofmt -l $(GOFILES)); [ -z "$$unformatted" ] || { echo "not formatted, run 'make fmt':" $$unformatted; exit 1; }

vet: ## Run go vet
	go vet ./...

fuzz: ## Run each fuzz test for FUZZTIME (10s; 1000x for that many inputs)
	@git grep -l '^func Fuzz' -- '*_test.go' | while read -r file; do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file"); do \
			echo "$$file $$name"; \
			go test -vet=off -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" || exit 1; \
		done; \
	done

bench: build ## Measure speed and cost against their marks, in about 5 minutes (BENCHFLAGS=-update keeps the table)
	@path=$$(test/install/servers.sh) && test/install/wrk.sh && export PATH="$$path" && set -x && go run ./bench $(BENCHFLAGS)

soak: build ## Three replicas under traffic for SOAKTIME (2m) while things are killed: nothing may be lost
	@path=$$(test/install/servers.sh) && export PATH="$$path" && set -x && go run ./test/soak -for $(SOAKTIME) $(SOAKFLAGS)

crash: ## Stop every operation at every message in every way, and race two writers 400 times, on every backend (an hour)
	@path=$$(test/install/servers.sh) && export PATH="$$path" NEXUS_TEST_SERVERS=1 NEXUS_TEST_ALL=1 && set -x && \
		go test -count=1 -timeout 2h -run 'TestCrash$$|TestTwoWriters$$' ./test/e2e

defences: ## Take every defence out, one at a time: its tests must notice (DEFENCESFLAGS='-only faults/refresh')
	@path=$$(test/install/servers.sh) && export PATH="$$path" NEXUS_TEST_SERVERS=1 && set -x && go run ./test/defences $(DEFENCESFLAGS)

clean: ## Remove what was built here (not the cache of test servers)
	rm -rf bin
