#!/bin/sh
# Builds every plugin as a component for wasm32-wasip2 and copies the components to plugins/dist/<name>.wasm.
# Quick and quiet when nothing has changed. Needs: rustup target add wasm32-wasip2
set -eu
cd "$(dirname "$0")"

plugins="aircraft-generator latest-position flight-watch log-sink window-counts http-sink http-poller incident-desk \
    incident-report test-identity test-marked test-misbehave test-reach test-sockets test-spin-describe test-worker"
target=wasm32-wasip2
target_dir=${CARGO_TARGET_DIR:-target}

if ! [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; then
    echo "plugins: the Rust target $target is missing; run: rustup target add $target" >&2
    exit 1
fi

# shellcheck disable=SC2046 # one -p for each plugin
cargo build --quiet --locked --release --target "$target" --target-dir "$target_dir" $(printf -- '-p %s ' $plugins)

mkdir -p dist
for plugin in $plugins; do
    built="$target_dir/$target/release/$(echo "$plugin" | tr - _).wasm"
    # A file is replaced in one step, and only when it differs, so that a host that watches the folder sees whole
    # components and no needless change.
    if ! cmp -s "$built" "dist/$plugin.wasm"; then
        cp "$built" "dist/.$plugin.wasm"
        mv "dist/.$plugin.wasm" "dist/$plugin.wasm"
        echo "plugins: built dist/$plugin.wasm ($(($(wc -c <"dist/$plugin.wasm") / 1024)) kB)"
    fi
done
