#!/usr/bin/env bash
# Kills, pauses and cuts real hosts and a real Postgres, and checks what came of it: scripts/soak.sh [ARGUMENT...];
# docs/reliability.md says what. Nothing else should run meanwhile.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# soak.sh [--only ID,ID...] [ARGUMENT...]: R16 and R17 are tests of the host, which mount small disks and make a standby.
only='' arguments=()
while [ $# != 0 ]; do
    case $1 in
        --only) only=$2 && shift ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
cases=() tests=()
for id in ${only//,/ }; do
    case $id in
        [Rr]16) tests+=(full::) ;;
        [Rr]17) tests+=(failover::) ;;
        *) cases+=("$id") ;;
    esac
done
[ -n "$only" ] || tests=(full:: failover::)
status=0

scripts/setup.sh toolchain postgres duckdb plugins web pgbouncer faketime
if [ -z "$only" ] || [ ${#cases[@]} != 0 ]; then
    if ! [ -x "$(target_dir)/release/tidemill-faults" ]; then
        say "building the faults and the host (the first time takes some minutes)"
    fi
    # One command for both, so that they share their libraries.
    cargo build --release --locked --quiet --package tidemill --bins --package tidemill-faults
    [ ${#cases[@]} = 0 ] || arguments+=(--only "$(IFS=,; echo "${cases[*]}")")
    "$(target_dir)/release/tidemill-faults" "${arguments[@]}" || status=1
fi
if [ ${#tests[@]} != 0 ]; then
    cargo test --locked --quiet --workspace --test it -- "${tests[@]}" || status=1
fi
exit "$status"
