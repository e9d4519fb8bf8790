# Shared by the scripts in this folder; source it. Sets the working directory to the project.
# shellcheck shell=bash
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
project=$PWD
setup=$project/.setup

# One line about what is being done.
say() { printf 'setup: %s\n' "$*" >&2; }

# Ends with what is wrong and what to do about it.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint; do printf '       %s\n' "$hint" >&2; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command and shows its output only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" != 0 ]; then
        tail -n 40 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

# One number for the contents of files and folders, without what is built or installed into them.
fingerprint() {
    find "$@" \( -name node_modules -o -name dist -o -name target -o -name __pycache__ \) -prune -o -type f -print0 |
        LC_ALL=C sort -z | xargs -0 cksum | cksum
}

# is_done NAME FINGERPRINT: whether the step was done for this input.
is_done() { [ "$(cat "$setup/done/$1" 2>/dev/null)" = "$2" ]; }

mark_done() {
    mkdir -p "$setup/done"
    printf '%s\n' "$2" >"$setup/done/$1"
}

# Where cargo puts what it builds.
target_dir() {
    if [ -n "${CARGO_TARGET_DIR:-}" ]; then
        printf '%s\n' "$CARGO_TARGET_DIR"
    else
        cargo metadata --locked --offline --no-deps --format-version 1 2>/dev/null |
            sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
    fi
}

# The system's pgbouncer, or the one that setup fetched, which is started with its folder as LD_LIBRARY_PATH.
find_pgbouncer() {
    PATH=$PATH:/usr/sbin command -v pgbouncer && return
    LD_LIBRARY_PATH=$setup/pgbouncer "$setup/pgbouncer/pgbouncer" --version >/dev/null 2>&1 &&
        printf '%s\n' "$setup/pgbouncer/pgbouncer"
}

# The first of the browsers that is there. CHROMIUM names one.
find_browser() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
        if [ -n "$name" ] && have "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}
