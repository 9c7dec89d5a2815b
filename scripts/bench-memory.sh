#!/usr/bin/env bash
# What a service costs the server in memory: resident size after every service has reported twice and ten times, less that
# of the idle server, divided by the services. Four metrics, built-in rules. Prints a table, then a line of JSON for each.
#
# bench-memory.sh [SERVICES...], by default 10000 and 100000. BIN_DIR: where the programs are.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/bench-lib.sh
. scripts/bench-lib.sh

# So that what waits in queues meanwhile, and malloc then keeps, is not taken for what a service costs.
rate=100000

# Sets `idle` and `used`, in KiB, of a fresh server.
measure() { # SERVICES ROUNDS
    start_server --max-instances "$1" --max-instances-per-stream "$1"
    ready server grpc >"$tmp/addr"
    sleep 1
    idle=$(kilobytes "${pids[server]}" VmRSS)
    generate server --numbered --services "$1" --reports $(($1 * $2)) --rate "$rate" --write 16
    sleep 1
    used=$(kilobytes "${pids[server]}" VmRSS)
    stop server
}

bytes() { # SERVICES
    echo $(((used - idle) * 1024 / $1))
}

echo "| services | idle, MiB | after 2 rounds, MiB | bytes per service | after 10 rounds, MiB | bytes per service | load average |"
echo "|---|---|---|---|---|---|---|"
if [ $# -eq 0 ]; then set -- 10000 100000; fi
for n; do
    measure "$n" 2
    used_twice=$used twice=$(bytes "$n")
    measure "$n" 10
    often=$(bytes "$n") load=$(load_average)
    echo "| $n | $((idle / 1024)) | $((used_twice / 1024)) | $twice | $((used / 1024)) | $often | $load |"
    printf '{"bench":"memory","work":"w3","services":%d,"idle_kib":%d,"bytes_per_service":%d,"bytes_per_service_10_rounds":%d,"load_average":%s}\n' \
        "$n" "$idle" "$twice" "$often" "$load" >>"$tmp/lines.json"
done
echo
cat "$tmp/lines.json"
