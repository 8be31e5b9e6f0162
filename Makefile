# All that is done with a checkout. `make` alone says what there is.

.DEFAULT_GOAL := help
.NOTPARALLEL:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTHON := .tools/venv/bin/python

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Install what is missing (Debian packages, pinned tools in .tools)
	@deploy/local/setup.sh

# The page is made anew when what it is made of has changed.
CONSOLE := crates/console/dist/index.html
.PHONY: console
console: setup $(CONSOLE) ## Make the console's page, which the programs have in them

$(CONSOLE): docs/openapi.json $(shell find crates/console/web -type f ! -name openapi.ts)
	@node crates/console/web/build.mjs

.PHONY: build
build: console ## Build every program, into target/debug
	$(CARGO) build --locked --workspace --bins

.PHONY: demo
demo: console ## Build, and tell the whole story on this terminal
	$(CARGO) build --locked --workspace --bin posthaste
	@$(PYTHON) deploy/local/demo.py $(TARGET)/debug/posthaste

# The end-to-end tests run the programs, and refuse those that are older than the sources. They wait more than they work,
# so there are more at once than there are processors.
.PHONY: test
test: build ## Run all tests
	RUST_TEST_THREADS=$$(($$(nproc) * 2)) $(CARGO) test --locked --workspace --no-fail-fast

# Each failpoint alone, and twice in a row: a quarter of an hour, most of it waiting.
.PHONY: faults
faults: build ## Have each service die at each boundary between two steps, and look what comes of it
	$(CARGO) test --locked --package tests --test e2e -- --ignored --nocapture faults::

# `make test` has each target for a second; here libFuzzer looks for more. Needs a C++ compiler.
.PHONY: fuzz
fuzz: setup ## Fuzz what strangers send, each target for a minute (SECONDS=600 TARGETS="url wire" say otherwise)
	@tests/fuzz/run.sh $(or $(SECONDS),60) $(TARGETS)

# Not in `ci`: five hundred times something is broken, built and tested. Needs Debian's iproute2.
.PHONY: mutants
mutants: ## Break the guard, signing and retries in small ways, and look whether a test notices (ONLY=egress/resolver)
	@deploy/local/cargo-tool.sh cargo-mutants 27.1.0
	@tests/mutants.sh $(ONLY)

.PHONY: lint
lint: ## Check formatting, and let clippy find no fault
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

# Not in `ci`: compiling the tool takes minutes, and the list of advisories comes from the network. Without one,
# WHICH="bans licenses sources" checks the rest.
.PHONY: deny
deny: ## Check dependencies: advisories, licences, bans, sources (WHICH= chooses among them)
	@deploy/local/cargo-tool.sh cargo-deny 0.20.2
	.tools/cargo/bin/cargo-deny --locked check $(WHICH)

.PHONY: sbom
sbom: ## List what is in the program, as CycloneDX, in target/posthaste.cdx.json
	@deploy/local/cargo-tool.sh cargo-cyclonedx 0.5.9
	.tools/cargo/bin/cargo-cyclonedx cyclonedx --manifest-path crates/posthaste/Cargo.toml --format json \
		--spec-version 1.5 --no-build-deps --override-filename sbom
	@mkdir -p target
	@# Where it was checked out is nobody's business.
	sed 's|file://$(CURDIR)/|file:///|g' crates/posthaste/sbom.json >target/posthaste.cdx.json
	@find . -path ./target -prune -o -name sbom.json -exec rm -f {} +

.PHONY: sqlx
sqlx: setup ## Write .sqlx anew, after a query or a migration has changed
	deploy/local/sqlx-prepare.sh

.PHONY: sqlx-verify
sqlx-verify: setup ## Check that .sqlx is what the queries and migrations make
	deploy/local/sqlx-prepare.sh --check

.PHONY: openapi
openapi: ## Write docs/openapi*.json anew, after a handler has changed (a test says so)
	@mkdir -p target
	$(CARGO) run --quiet --locked --example openapi-config-api >target/openapi.json
	$(CARGO) run --quiet --locked --example openapi-ingest >target/openapi-ingest.json
	mv target/openapi.json target/openapi-ingest.json docs/

.PHONY: ci
ci: console lint sqlx-verify test ## All that must pass before a change lands

.PHONY: bench
bench: console ## Measure speed, latency and cost here (ARGS=--help says what can be chosen)
	$(CARGO) build --locked --release --package posthaste
	$(CARGO) build --locked --release --package tests --bin posthaste-bench
	@$(TARGET)/release/posthaste-bench $(ARGS)

.PHONY: clean
clean: ## Remove what was built and what setup put into .tools
	$(CARGO) clean
	rm -rf .tools
