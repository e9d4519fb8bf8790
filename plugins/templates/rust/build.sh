#!/bin/sh
# Builds dist/{{name}}.wasm. Needs Rust 1.95 or later, and once: rustup target add wasm32-wasip2
set -eu
cd "$(dirname "$0")"
target_dir=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --target wasm32-wasip2 --target-dir "$target_dir"
mkdir -p dist
cp "$target_dir/wasm32-wasip2/release/$(echo "{{name}}" | tr - _).wasm" "dist/.{{name}}.wasm"
# In one step, so that a host that watches the folder sees whole components only.
mv "dist/.{{name}}.wasm" "dist/{{name}}.wasm"
