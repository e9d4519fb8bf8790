#!/usr/bin/env bash
# Builds flight-watch in TypeScript, C and Python, and the templates of all languages, into plugins/dist. What has been
# built from the same sources with the same tools is taken from the target folder, so that tools are installed only
# where they are needed.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

mkdir -p plugins/dist "${CARGO_TARGET_DIR:-plugins/target}/languages"
kept=$(cd "${CARGO_TARGET_DIR:-plugins/target}/languages" && pwd)
cd plugins

# component NAME LANGUAGE INPUTS -- COMMAND...: COMMAND gets the path of the component as its last argument.
component() {
    local name=$1 language=$2 inputs=() wanted
    shift 2
    while [ "$1" != -- ]; do
        inputs+=("$1")
        shift
    done
    shift
    wanted=$kept/$name-$(fingerprint "${inputs[@]}" tools ../wit | tr ' ' -).wasm
    if ! [ -f "$wanted" ]; then
        [ "$language" = rust ] || tools/install.sh "$setup/guests" "$language"
        rm -f "$kept/$name"-*.wasm
        "$@" "$wanted" || die "plugins/dist/$name.wasm does not build" "see the messages above"
    fi
    # Only when it differs, and in one step, for hosts that watch the folder.
    if ! cmp -s "$wanted" "dist/$name.wasm"; then
        cp "$wanted" "dist/.$name.wasm"
        mv "dist/.$name.wasm" "dist/$name.wasm"
        echo "plugins: built dist/$name.wasm ($(($(wc -c <"dist/$name.wasm") / 1024)) kB)"
    fi
}

# template LANGUAGE PATH: builds the template as the project that `templates/new.sh` makes of it.
template() {
    local project=$kept/project
    rm -rf "$project"
    templates/new.sh "$1" low-flyers "$project"
    if [ "$1" = rust ]; then
        # It has the versions of this workspace, most of them built already.
        CARGO_TARGET_DIR=${kept%/languages} "$project/build.sh"
    else
        TIDEMILL_TOOLS=$setup/guests "$project/build.sh"
    fi
    mv "$project/dist/low-flyers.wasm" "$2"
    rm -rf "$project"
}

has_pip() { have python3 && python3 -m pip --version >/dev/null 2>&1; }

component flight-watch-js typescript sdk-js languages/typescript -- \
    node sdk-js/build.mjs languages/typescript/flight-watch.ts
component template-typescript typescript sdk-js templates -- template typescript
component template-rust rust sdk templates Cargo.lock -- template rust
if has_pip; then
    component flight-watch-c c sdk-c languages/c -- node sdk-c/build.mjs languages/c/flight_watch.c
    component template-c c sdk-c templates -- template c
    component flight-watch-python python sdk-python languages/python -- \
        sdk-python/build.sh languages/python/flight_watch.py
    component template-python python sdk-python templates -- template python
else
    say "there is no python3 with pip, so flight-watch in C and Python are not built; to build them: apt-get install python3-pip"
fi
