# Thin: each target is one line, and does its own set-up.

.PHONY: help demo test lint bench soak setup plugins web build clean

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1 \t/p' Makefile | expand -t 16

demo: ## set up, build, and serve the live map of 500 aircraft
	@scripts/demo.sh

test: ## set up, and run every test
	@scripts/test.sh

lint: ## formatting, clippy, dependencies, the web page's types and style, shell scripts
	@scripts/lint.sh

bench: ## measure, beside what it is compared with (QUICK=1: a look; CASES="append query": only those)
	@scripts/bench.sh $(if $(QUICK),--quick) $(CASES)

soak: ## hurt real hosts and Postgres, and check what came of it (ONLY=R1,R3; SEED=42; ROUNDS=9; MINUTES=10: random faults)
	@scripts/soak.sh $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MINUTES),--minutes $(MINUTES))

setup: ## install what build and tests need (quick when it is there)
	@scripts/setup.sh toolchain postgres duckdb plugins guest-languages web duckdb-cli queue-peers browser cargo-deny

plugins: ## build the sample plugins, in all languages, into plugins/dist
	@scripts/setup.sh toolchain plugins guest-languages

web: ## build the web page into web/dist
	@scripts/setup.sh web

build: ## set up, and build the optimised binary
	@scripts/build.sh

clean: ## remove what was built and installed here, but no data
	@scripts/clean.sh
