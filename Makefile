# What people type. Everything runs in the dev profile but `demo` and `bench`. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check sqlx bench release clean

# Programs of `make setup` come first, so that everybody checks with the same versions.
export PATH := $(CURDIR)/.tools/bin:$(PATH)
# SQL is checked against .sqlx, whatever DATABASE_URL a developer has set; tools/check-sqlx checks .sqlx itself.
export SQLX_OFFLINE := true

# The servers of `make setup` are found also when the target folder lies outside the checkout.
servers_env = WHERRY_PG_BIN=$(CURDIR)/.tools/postgres/bin WHERRY_NATS_SERVER=$(CURDIR)/.tools/bin/nats-server

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 11

setup: ## Install what building, running and testing need; a second is enough when nothing is missing
	@tools/setup

# Needs neither the checkers nor the SDK clients, so it runs also where those are not to be had.
demo: ## Migrate a real disk on this machine; KEEP=1 leaves everything running
	@tools/setup run
	@$(servers_env) KEEP=$(KEEP) tools/demo

test: setup ## Run every test
	@$(servers_env) cargo nextest run --workspace

test-long: setup ## Run the data path and whole clusters under many seeds of faults and a load of strangers, millions of fuzzed inputs, and 16 TiB of known data; half an hour
	@WHERRY_LONG=1 cargo nextest run --profile long -p transfer simulation memory
	@$(servers_env) WHERRY_LONG=1 cargo nextest run --profile long -p wherry --test faults --test strangers
	@WHERRY_FUZZ_INPUTS=500000 cargo nextest run --profile long -p fuzz

# cargo-deny runs without `advisories`: the advisory database is a GitHub repository, and checks must not need more than the package registry.
# Where GitHub can be reached, `cargo deny check advisories` works as it is.
check: setup ## Everything that a change must pass besides the tests
	cargo fmt --all --check
	tools/check-layers --self-test
	tools/check-layers
	tools/check-english --self-test
	tools/check-english
	cargo deny --log-level error check bans licenses sources
	cargo shear
	promtool check config --lint=none deploy/prometheus/prometheus.yml
	promtool test rules deploy/prometheus/alerts_test.yml
	deploy/grafana/make-dashboard --check
	tools/check-sqlx
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p wherry --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items
	@echo "check: all passed"

sqlx: setup ## Write .sqlx again, after a change to SQL or to the schema
	@tools/check-sqlx --write

bench: setup ## Measure the data path beside other tools; ARGS=--quick for a minute instead of half an hour
	@bench/run $(ARGS)

release: ## Build the stripped programs wherry and wherry-agent into target/dist, with their symbols beside them
	@tools/release

clean: ## Remove builds, tools and the developers' database
	@tools/dev-database --stop 2>/dev/null || true
	cargo clean
	rm -rf .tools .wherry
