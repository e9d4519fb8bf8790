#!/usr/bin/env bash
# Everything that can be said about the code without running it. Goes on after a failure, so that one run tells all.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh toolchain postgres duckdb plugins web cargo-deny
PATH=$setup/bin:$PATH
failed=()

# check NAME COMMAND...
check() {
    local name=$1 started=$SECONDS
    shift
    if "$@"; then
        printf 'ok       %s (%d s)\n' "$name" $((SECONDS - started))
    else
        failed+=("$name")
        printf 'FAILED   %s\n' "$name"
    fi
}
skip() { printf 'skipped  %s: %s\n' "$1" "$2"; }

in_plugins() { (cd plugins && "$@"); }
in_web() { (cd web && "$@"); }

advisories() {
    local log status=0
    log=$(mktemp)
    cargo deny --log-level error --locked check --hide-inclusion-graph advisories >"$log" 2>&1 </dev/null || status=$?
    if grep -q 'failed to fetch advisory database' "$log"; then
        skip advisories "the advisory database cannot be reached from here"
    else
        check advisories test "$status" = 0
        [ "$status" = 0 ] || cat "$log"
    fi
    rm -f "$log"
}

check "rustfmt (host)" cargo fmt --all --check
check "rustfmt (plugins)" in_plugins cargo fmt --all --check
check "clippy (host)" cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
check "clippy (plugins)" in_plugins cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
check "dependencies (host)" cargo deny --log-level error --locked check --hide-inclusion-graph bans licenses sources
check "dependencies (plugins)" cargo deny --log-level error --locked --manifest-path plugins/Cargo.toml \
    --config deny.toml check --hide-inclusion-graph bans licenses sources
advisories
check "types (web)" in_web npm run --silent check
check "style (web)" in_web npm run --silent lint
if have shellcheck; then
    check "shell scripts" shellcheck --severity=warning --external-sources scripts/*.sh .ci/run plugins/*.sh plugins/*/*.sh plugins/templates/*/*.sh
else
    skip "shell scripts" "shellcheck is not installed"
fi

if [ ${#failed[@]} != 0 ]; then
    printf '%s\n' "lint failed: $(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
