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

mkdir -p "$(dirname "$out")"
building=$(mktemp -d "$(dirname "$out")/.build-XXXXXX")
trap 'rm -rf "$building"' EXIT
# A copy, because the interpreter leaves compiled files beside what it reads.
cp -R "$(dirname "$source")" "$building/app"
cp "$here/tidemill.py" "$building/app/"
PYTHONPATH=$tools/python python3 -B -c 'import sys; from componentize_py import script; sys.exit(script())' \
    --quiet --wit-path "$wit" --world "${WORLD:-tidemill:plugin/transform}" \
    componentize --stub-wasi --python-path "$building/app" --output "$building/component" \
    "$(basename "$source" .py)"
# In one step, so that a host that watches the folder sees whole components only.
mv "$building/component" "$out"
