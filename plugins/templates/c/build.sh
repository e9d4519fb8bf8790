#!/bin/sh
# Builds dist/{{name}}.wasm. Needs Node.js 20.19 or later and Python 3 with pip; the tools, a C compiler among them, are
# installed into .tools the first time.
set -eu
cd "$(dirname "$0")"
[ -n "${TIDEMILL_TOOLS:-}" ] || tools/install.sh .tools c
node sdk/build.mjs src/plugin.c "dist/{{name}}.wasm"
