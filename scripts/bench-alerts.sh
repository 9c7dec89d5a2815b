#!/usr/bin/env bash
# How alerts reach the store: bench-alerts.sh latency|storm [FLAG...], see examples/alerts. With it end the servers that it
# has started, and its files go. TMPDIR: the disk to measure on. BIN_DIR: where the programs are.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/bench-lib.sh
. scripts/bench-lib.sh

run alerts "$bin_dir/examples/alerts" "$@"
