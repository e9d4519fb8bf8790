#!/usr/bin/env bash
# Builds the optimised binary with all that is embedded in it.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh
if ! [ -x "$(target_dir)/release/tidemill" ]; then
    say "building the host (the first time takes some minutes)"
fi
cargo build --release --locked --quiet --bins
