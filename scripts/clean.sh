#!/usr/bin/env bash
# Removes what was built and installed here. Data directories such as .tidemill stay.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

cargo clean --quiet
rm -rf .setup plugins/target plugins/dist web/node_modules web/dist
if [ -e .tidemill ]; then
    echo "the log in .tidemill is kept; to remove it too: rm -r .tidemill"
fi
