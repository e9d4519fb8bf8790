#!/usr/bin/env bash
# Measures: scripts/bench.sh [--quick] [CASE...]; docs/bench.md says what. Nothing else should run meanwhile.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh toolchain postgres duckdb plugins web duckdb-cli
if [[ " $* " == *" queue"* ]] || ! [[ " $* " =~ " "(append|partitions|fetch|transform|archive|query)" " ]]; then
    scripts/setup.sh queue-peers
fi
if ! [ -x "$(target_dir)/release/tidemill-bench" ]; then
    say "building the measurements (the first time takes some minutes)"
fi
# Hosts and their program for queries are started by measurements, which look for them beside themselves.
cargo build --release --locked --quiet --package tidemill --bin tidemill --bin tidemill-query --package tidemill-bench --bin tidemill-bench
exec "$(target_dir)/release/tidemill-bench" "$@"
