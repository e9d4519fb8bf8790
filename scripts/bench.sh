#!/usr/bin/env bash
# Measures: scripts/bench.sh [--quick] [CASE...]; docs/bench.md says what. Nothing else should run meanwhile.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh toolchain postgres duckdb plugins web duckdb-cli
if ! [ -x "$(target_dir)/release/tidemill-bench" ]; then
    say "building the measurements (the first time takes some minutes)"
fi
# The queries' program belongs to the host; the measurements look for it beside themselves.
cargo build --release --locked --quiet --package tidemill --bin tidemill-query --package tidemill-bench --bin tidemill-bench
exec "$(target_dir)/release/tidemill-bench" "$@"
