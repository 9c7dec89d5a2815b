# Every way to build, run and check GopherWatch. `make help` lists them: a target's `##` comment is its line there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Cargo's own variable, so that programs are found where cargo puts them.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# What follows the program's name: make run-server ARGS="--http-addr 127.0.0.1:9090"
ARGS ?=

# Server and agent are built in one go: built one by one they would share fewer compiled dependencies. `exec`, so that
# a signal to make reaches the program and nothing between.
.PHONY: run-server
run-server: build ## Build, then run the server; flags in ARGS="..."; needs no database and no .env
	@exec "$(TARGET_DIR)/release/gopherwatch-server" $(ARGS)

.PHONY: run-agent
run-agent: build ## Build, then report this host to the server; flags in ARGS="..."
	@exec "$(TARGET_DIR)/release/gopherwatch-agent" $(ARGS)

.PHONY: demo
demo: build ## Two minutes with invented services: breaches, resolves, a killed agent; own ports, temporary data
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/demo.sh

.PHONY: build
build: ## Build server and agent, optimised, into target/release
	$(CARGO) build --release --workspace --locked

# Most tests wait for something, and the heavy ones wait for each other.
TEST_THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n > 4 ? n : 4)))
.PHONY: test
test: ## Run every test; installs what they need first where it is missing and may be installed
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server \
	    systemd-analyze:systemd prometheus-node-exporter:prometheus-node-exporter
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --workspace --locked

# SEED: the same workload and the same plan of faults again. ROUNDS: kills of the server, other faults in proportion.
SEED ?=
ROUNDS ?= 200
.PHONY: chaos
chaos: build ## Kill, stop, stall and cut everything under load, and check that nothing was lost; SEED=... ROUNDS=... ARGS="--only kill-"
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server
	@exec "$(TARGET_DIR)/release/chaos" run --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: chaos-saboteur
chaos-saboteur: ## Build a server that loses one row in 10,000 on its way to the store, and see that the checker misses it
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server
	scripts/chaos-saboteur.sh

# NAMES: parts of names of patches in tests/mends; all of them without it.
NAMES ?=
.PHONY: mends
mends: ## Take each mend of a known fault out, and see that its test turns red; NAMES="digest window"
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server
	scripts/mends.sh $(NAMES)

.PHONY: bench
bench: ## Run the benchmarks
	$(CARGO) bench --workspace --locked

.PHONY: bench-durability
bench-durability: build ## Time receipts, beside the disk's fsync, and restarts with 100,000 alerts firing; ARGS="--dir DISK"
	@$(CARGO) run --release --locked --quiet --example durability -- $(ARGS)

# What a bench script runs, and no more: the whole workspace takes minutes to build.
.PHONY: bench-programs
bench-programs:
	@$(CARGO) build --release --locked --quiet --bin gopherwatch-server --example load --example baseline --example alerts

# WORK: w1 w1b w1c shuffled names violating-1 violating-10 violating-100 hot frames streams rules workers.
WORK ?=
.PHONY: bench-ingest
bench-ingest: bench-programs ## What a report costs, beside a server that only decodes; WORK="w1 streams rules" RUNS=3 REPORTS=4000000
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/bench-ingest.sh $(WORK)

# PROBES: readings that are timed. ARGS: `--store sqlite` or `--store mysql`; both otherwise.
PROBES ?= 500
.PHONY: bench-latency
bench-latency: bench-programs ## How soon a violation is visible in the store, beside 5,000 reports/s; PROBES=500 ARGS="--store mysql"
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/bench-alerts.sh latency --probes $(PROBES) $(ARGS)

# N: how many services, one run for each.
N ?=
.PHONY: bench-memory
bench-memory: bench-programs ## What a service costs in memory; N="10000 100000 1000000"
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/bench-memory.sh $(N)

.PHONY: bench-storm
bench-storm: bench-programs ## Alert rows a second into SQLite and MariaDB; ARGS="--rows 300000 --services 10000 --store mysql"
	scripts/need.sh mariadbd:mariadb-server mariadb-install-db:mariadb-server
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/bench-alerts.sh storm $(ARGS)

.PHONY: bench-agent
bench-agent: build ## Memory and CPU of the agent in a minute, beside node_exporter and collectd
	scripts/need.sh curl:curl prometheus-node-exporter:prometheus-node-exporter collectd:collectd-core
	@exec env BIN_DIR="$(TARGET_DIR)/release" scripts/bench-agent.sh

.PHONY: fmt
fmt: ## Check the formatting; `cargo fmt --all` mends it
	$(CARGO) fmt --all --check

.PHONY: lint
lint: ## Run clippy on everything, and on the client without its spool and TLS; a warning is an error
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy -p gopherwatch-client --no-default-features --locked -- -D warnings
	! $(CARGO) tree -p gopherwatch-client --no-default-features --edges normal,build --locked | grep -E 'sqlite|rustls|ring v'

.PHONY: doc
doc: ## Build the documentation of the code; a warning is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: deny
deny: ## Check licences, bans, sources and unused dependencies; installs cargo-deny and cargo-machete when missing
	scripts/dependencies.sh

.PHONY: check
check: fmt lint doc deny test ## Everything that must pass before a commit is shared

.PHONY: help
help: ## Say what each target does
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
