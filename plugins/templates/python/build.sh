#!/bin/sh
# Builds dist/{{name}}.wasm. Needs Python 3 with pip; the tools are installed into .tools the first time.
set -eu
cd "$(dirname "$0")"
[ -n "${TIDEMILL_TOOLS:-}" ] || tools/install.sh .tools python
sdk/build.sh src/plugin.py "dist/{{name}}.wasm"
