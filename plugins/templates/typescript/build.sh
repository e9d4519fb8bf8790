#!/bin/sh
# Builds dist/{{name}}.wasm. Needs Node.js 20.19 or later; the tools are installed into .tools the first time.
set -eu
cd "$(dirname "$0")"
[ -n "${TIDEMILL_TOOLS:-}" ] || tools/install.sh .tools typescript
node sdk/build.mjs src/plugin.ts "dist/{{name}}.wasm"
