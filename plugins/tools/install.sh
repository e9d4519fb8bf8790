#!/bin/sh
# Installs what plugins in other languages are built with, pinned by version and contents:
#
#     tools/install.sh FOLDER LANGUAGE...     # typescript, c, python
#
# Silent and quick when it is there. Needs Node.js 20.19 or later with npm (TypeScript, C), python3 with pip (C, Python).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

# once NAME FILE... -- COMMAND...: runs it unless it was done for these files.
once() {
    name=$1
    shift
    wanted=
    while [ "$1" != -- ]; do
        wanted="$wanted$(cksum <"$1")"
        shift
    done
    shift
    if [ "$(cat "$folder/.$name" 2>/dev/null)" != "$wanted" ]; then
        echo "tools: installing what plugins are built with: $name" >&2
        "$@" >"$folder/$name.log" 2>&1 </dev/null || {
            cat "$folder/$name.log" >&2
            echo "error: $name could not be installed; its registry must be reachable" >&2
            exit 1
        }
        echo "$wanted" >"$folder/.$name"
    fi
}

with_npm() {
    command -v npm >/dev/null || { echo "npm is missing: install Node.js 20.19 or later, https://nodejs.org"; return 1; }
    cp "$here/package.json" "$here/package-lock.json" "$folder/"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund)
}

# with_pip NAME: each list in a folder of its own, since pip replaces what it finds there.
with_pip() {
    python3 -m pip --version >/dev/null || { echo "pip is missing: apt-get install python3-pip"; return 1; }
    rm -rf "${folder:?}/$1"
    python3 -m pip install --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --target "$folder/$1" -r "$here/requirements-$1.txt"
}

for language; do
    case $language in
        typescript) once npm "$here/package-lock.json" -- with_npm ;;
        c)
            once npm "$here/package-lock.json" -- with_npm
            once c "$here/requirements-c.txt" -- with_pip c
            ;;
        python) once python "$here/requirements-python.txt" -- with_pip python ;;
        *) echo "error: there is no language $language; there are typescript, c, python" >&2 && exit 1 ;;
    esac
done
