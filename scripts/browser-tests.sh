#!/usr/bin/env bash
# Runs the tests of web/e2e in a browser, against a host of their own on a free port. Needs the debug binary
# (cargo test builds it), plugins/dist and web/dist. Without a browser the tests count as skipped.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if ! CHROMIUM=$(find_browser); then
    cd web && exec npm run --silent e2e
fi
export CHROMIUM

# Root's Postgres runs as another user, who has to pass through.
scratch=$(mktemp -d)
chmod 711 "$scratch"
log=$scratch/host.log
# It is read at once, and the host may take its time to start.
: >"$log"
# The sample with short segments, so that there is a history to ask within seconds.
sed -E 's/^segment = "1[mh]"/segment = "5s"/; s/hot = "(5m|24h)"/hot = "15s"/' pipelines/aircraft.toml >"$scratch/aircraft.toml"
if [ "$(grep -c '^segment = "5s"\|hot = "15s"' "$scratch/aircraft.toml")" -lt 2 ]; then
    die "pipelines/aircraft.toml has other segments than this script expects" "adapt the line above in $0"
fi
# A queue that no stage works for: its jobs stay until a test takes them.
printf '\n[queues.errands]\nmax_attempts = 3\n' >>"$scratch/aircraft.toml"
"$(target_dir)/debug/tidemill" up "$scratch/aircraft.toml" --listen 127.0.0.1:0 --data-dir "$scratch/data" \
    >"$log" 2>&1 </dev/null &
host=$!
cleanup() {
    if [ -n "$host" ]; then
        kill "$host" 2>/dev/null || true
        wait "$host" || true
    fi
    rm -rf "$scratch"
}
trap cleanup EXIT

TIDEMILL_URL=
for _ in $(seq 600); do
    TIDEMILL_URL=$(sed -nE 's/^ *map and API +(http[^ ]+).*/\1/p' "$log")
    if [ -n "$TIDEMILL_URL" ] || ! kill -0 "$host" 2>/dev/null; then
        break
    fi
    sleep 0.1
done
if [ -z "$TIDEMILL_URL" ]; then
    echo "the host for the tests in the browser did not start:"
    tail -n 20 "$log"
    exit 1
fi
export TIDEMILL_URL

(cd web && npm run --silent e2e)

kill "$host"
stopped=$host host=
if ! wait "$stopped"; then
    echo "the host did not stop in order:"
    tail -n 20 "$log"
    exit 1
fi
