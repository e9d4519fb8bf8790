#!/usr/bin/env bash
# Serves the live map. What is given is passed on: scripts/demo.sh --listen 127.0.0.1:9000
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/build.sh
exec "$(target_dir)/release/tidemill" up pipelines/aircraft.toml "$@"
