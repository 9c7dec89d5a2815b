#!/usr/bin/env bash
# What the agent costs its host: resident memory and CPU over a minute, beside node_exporter (scraped each second) and
# collectd (sending each second), as far as these are installed. SECONDS_MEASURED: another time than 60.
#
# BIN_DIR: where gopherwatch-agent and gopherwatch-server are. Prints a table, and a JSON line with the same figures.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/bench-lib.sh
. scripts/bench-lib.sh

seconds=${SECONDS_MEASURED:-60}
# How long all of them run before the measurement: what they do once at their start is not what they cost.
settle=10

# What is measured, in the order of the table.
names=()

measured() { # NAME COMMAND...
    names+=("$1")
    start "$@"
}

is_there() { # PROGRAM DEBIAN-PACKAGE
    command -v "$1" >/dev/null && return
    echo "without $1, which is not installed: apt-get install --no-install-recommends $2" >&2
    return 1
}

# shellcheck disable=SC2119 # It needs no arguments.
start_server
grpc_addr=$(ready server grpc)
measured gopherwatch-agent "$bin_dir/gopherwatch-agent" --server "$grpc_addr" --interval 1s

if is_there prometheus-node-exporter prometheus-node-exporter && is_there curl curl; then
    exporter_port=$(free_port)
    measured node_exporter prometheus-node-exporter --web.listen-address="127.0.0.1:$exporter_port"
    # shellcheck disable=SC2016 # The inner shell's own argument.
    start scrape bash -c 'while :; do curl -sf -o /dev/null "$1" || true; sleep 1; done' \
        scrape "http://127.0.0.1:$exporter_port/metrics"
fi

if is_there collectd collectd-core; then
    {
        echo "Interval 1"
        echo "BaseDir \"$tmp\""
        echo "PIDFile \"$tmp/collectd.pid\""
        # The same figures as the agent's, and a way out of the process, as the agent has.
        for plugin in cpu memory swap df disk interface load processes uptime network; do
            echo "LoadPlugin $plugin"
        done
        echo "<Plugin network>"
        echo "  Server \"127.0.0.1\" \"$(free_port)\""
        echo "</Plugin>"
    } >"$tmp/collectd.conf"
    measured collectd collectd -f -C "$tmp/collectd.conf"
fi

sleep "$settle"
for name in "${names[@]}"; do
    kill -0 "${pids[$name]}" 2>/dev/null || fail "$name has ended:" "$tmp/$name.log"
done
grep -q '"first receipt"' "$tmp/gopherwatch-agent.log" || fail "the agent has no receipt:" "$tmp/gopherwatch-agent.log"

# Time on a CPU so far, user and system, in nanoseconds, of all threads: /proc/PID/stat counts in hundredths of a second,
# of which an agent takes three a minute.
cpu_nanos() { # PID
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

declare -A before=()
for name in "${names[@]}"; do
    before[$name]=$(cpu_nanos "${pids[$name]}")
done
load_before=$(load_average)
sleep "$seconds"

json=""
echo "| | resident, MB | of it anonymous, MB | CPU, % of a core | threads |"
echo "|---|---|---|---|---|"
for name in "${names[@]}"; do
    pid=${pids[$name]}
    read -r cpu resident anonymous < <(awk -v nanos="$(($(cpu_nanos "$pid") - before[$name]))" -v seconds="$seconds" \
        -v rss="$(kilobytes "$pid" VmRSS)" -v anon="$(kilobytes "$pid" RssAnon)" \
        'BEGIN { printf "%.3f %.1f %.1f\n", nanos / 1e9 / seconds * 100, rss / 1024, anon / 1024 }')
    threads=$(awk '$1 == "Threads:" { print $2 }' "/proc/$pid/status")
    echo "| $name | $resident | $anonymous | $cpu | $threads |"
    json+=",\"$name\":{\"resident_mb\":$resident,\"anonymous_mb\":$anonymous,\"cpu_percent\":$cpu}"
done
load_after=$(load_average)
n_processes=$(find /proc -maxdepth 1 -name '[0-9]*' | wc -l)
echo "$seconds s, $(nproc) cores, $n_processes processes; load average $load_before before, $load_after after"
echo "{\"seconds\":$seconds,\"load_before\":$load_before,\"load_after\":$load_after$json}"
