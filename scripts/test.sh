#!/usr/bin/env bash
# Runs every test and counts them: host, plugins, web page, and the page in a browser against a running host.
# Goes on after a failure, so that one run tells all. The last line is the sum of what the runners said.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/setup.sh toolchain postgres duckdb plugins guest-languages web duckdb-cli queue-peers browser pgbouncer faketime
export NO_COLOR=1 CARGO_TERM_COLOR=never RUST_BACKTRACE=${RUST_BACKTRACE:-1}
unset FORCE_COLOR

# Without pip there is no Zig and no componentize-py; scripts/setup.sh has said so.
[ -f plugins/dist/flight-watch-c.wasm ] || export TIDEMILL_WITHOUT=C,Python

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

passed=0 failed=0 skipped=0 broken=()

# sum PATTERN FILE: the sum of the numbers that the pattern's first group matches.
sum() { sed -nE "s/$1/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

# suite NAME RUNNER COMMAND...: RUNNER says how the output is counted.
suite() {
    local name=$1 runner=$2 log=$logs/$1.log status=0 p=0 f=0 s=0
    shift 2
    printf '\n== %s\n' "$name"
    "$@" </dev/null 2>&1 | tee "$log" || status=$?
    case $runner in
        cargo)
            p=$(sum '^test result: .* ([0-9]+) passed;.*' "$log")
            f=$(sum '^test result: .* ([0-9]+) failed;.*' "$log")
            s=$(sum '^test result: .* ([0-9]+) ignored;.*' "$log")
            ;;
        vitest)
            p=$(sum '^ *Tests .*\b([0-9]+) passed.*' "$log")
            f=$(sum '^ *Tests .*\b([0-9]+) failed.*' "$log")
            s=$(sum '^ *Tests .*\b([0-9]+) skipped.*' "$log")
            ;;
        node)
            p=$(sum '^.{1,3} pass ([0-9]+)$' "$log")
            f=$(sum '^.{1,3} fail ([0-9]+)$' "$log")
            s=$(sum '^.{1,3} skipped ([0-9]+)$' "$log")
            ;;
    esac
    # A suite that did not build, or died without counting, is a failure too.
    if [ "$status" != 0 ]; then
        broken+=("$name")
        [ "$f" != 0 ] || f=1
    elif [ $((p + s)) = 0 ]; then
        broken+=("$name (no test ran)")
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

in_plugins() { (cd plugins && "$@"); }
in_web() { (cd web && "$@"); }

# Most tests of whole hosts wait, for a lease to run out or a segment's time to be over, so more of them run than there are cores.
cores=$(nproc)
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((cores < 4 ? 4 : cores))} suite host cargo cargo test --locked --workspace --no-fail-fast
suite plugins cargo in_plugins cargo test --locked --workspace --no-fail-fast
suite web vitest in_web npm run --silent test
suite browser node scripts/browser-tests.sh

printf '\ntests took %d s\n' "$SECONDS"
if [ "$skipped" != 0 ] && ! find_browser >/dev/null; then
    echo "the browser's tests were skipped: no browser found (apt-get install chromium, or set CHROMIUM)"
fi
if [ ${#broken[@]} != 0 ]; then
    printf 'not all is well in: %s\n' "$(IFS=,; echo "${broken[*]}")"
fi
if [ "$skipped" = 0 ]; then
    echo "$passed passed, $failed failed"
else
    echo "$passed passed, $failed failed, $skipped skipped"
fi
[ "$failed" = 0 ]
