#!/usr/bin/env bash
# Kills, pauses and cuts real hosts and a real Postgres, and checks what came of it: scripts/soak.sh [ARGUMENT...];
# docs/reliability.md says what. Nothing else should run meanwhile.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh toolchain postgres duckdb plugins web faketime
if ! [ -x "$(target_dir)/release/tidemill-faults" ]; then
    say "building the faults and the host (the first time takes some minutes)"
fi
# One command for both, so that they share their libraries.
cargo build --release --locked --quiet --package tidemill --bins --package tidemill-faults
exec "$(target_dir)/release/tidemill-faults" "$@"
