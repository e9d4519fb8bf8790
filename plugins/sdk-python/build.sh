#!/bin/sh
# Makes a component out of a plugin in Python: build.sh SOURCE.py OUT.wasm
#
# Joins the module, and what it imports from its own folder, with a Python interpreter. The interpreter's wishes (files,
# sockets, clocks, and so on) lead to traps inside the component, which imports what the world does and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
source=$1
out=$2

# In a project of `tidemill plugin new` the interface lies beside the SDK, in Tidemill itself two folders up.
wit=$here/../wit
[ -d "$wit" ] || wit=$here/../../wit/0.1.0

for tools in "${TIDEMILL_TOOLS:-}" .tools "$here/../../.setup/guests" none; do
    [ -d "$tools/python" ] && break
done
if [ "$tools" = none ]; then
    echo "error: the tools are missing; install them: tools/install.sh .tools python" >&2
    exit 1
fi

folder=$(dirname "$source")
building=$(dirname "$out")/.build-$$
mkdir -p "$(dirname "$out")"
trap 'rm -f "$building"' EXIT
# No hash seeds of its own in each build, no compiled files beside the sources.
PYTHONPATH=$tools/python PYTHONDONTWRITEBYTECODE=1 python3 -c 'import sys; from componentize_py import script; sys.exit(script())' \
    --quiet --wit-path "$wit" --world "${WORLD:-tidemill:plugin/transform}" \
    componentize --stub-wasi --python-path "$folder" --python-path "$here" --output "$building" \
    "$(basename "$source" .py)"
# In one step, so that a host that watches the folder sees whole components only.
mv "$building" "$out"
