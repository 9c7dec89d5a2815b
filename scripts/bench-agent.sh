#!/usr/bin/env bash
# What the agent costs its host: resident memory and CPU over a minute, beside node_exporter (scraped each second) and
# collectd (sending each second), as far as these are installed. SECONDS_MEASURED: another time than 60.
#
# BIN_DIR: where gopherwatch-agent and gopherwatch-server are. Prints a table, and a JSON line with the same figures.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

bin_dir=$(cd "${BIN_DIR:-target/release}" && pwd)
seconds=${SECONDS_MEASURED:-60}
# How long all of them run before the measurement: what they do once at their start is not what they cost.
settle=10

tmp=$(mktemp -d -t gopherwatch-bench-agent.XXXXXX)
cd "$tmp" # away from the repository's .env
names=()
pids=()
helpers=()

clean_up() {
    kill "${pids[@]}" "${helpers[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# A port that nothing listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (: </dev/tcp/127.0.0.1/$port) 2>/dev/null || break
    done
    echo "$port"
}

measured() { # NAME COMMAND...
    local name=$1
    shift
    "$@" </dev/null >"$tmp/$name.out" 2>&1 &
    names+=("$name")
    pids+=($!)
}

helper() { # NAME COMMAND...
    local name=$1
    shift
    "$@" </dev/null >"$tmp/$name.out" 2>&1 &
    helpers+=($!)
}

is_there() { # PROGRAM DEBIAN-PACKAGE
    command -v "$1" >/dev/null && return
    echo "without $1, which is not installed: apt-get install --no-install-recommends $2" >&2
    return 1
}

scrape() { # URL
    while :; do
        curl -sf -o /dev/null "$1" || true
        sleep 1
    done
}

grpc_port=$(free_port)
helper server "$bin_dir/gopherwatch-server" --data-dir "$tmp/data" --grpc-addr "127.0.0.1:$grpc_port" \
    --http-addr "127.0.0.1:$(free_port)"
measured gopherwatch-agent "$bin_dir/gopherwatch-agent" --server "127.0.0.1:$grpc_port" --interval 1s

if is_there prometheus-node-exporter prometheus-node-exporter && is_there curl curl; then
    exporter_port=$(free_port)
    measured node_exporter prometheus-node-exporter --web.listen-address="127.0.0.1:$exporter_port"
    helper scrape scrape "http://127.0.0.1:$exporter_port/metrics"
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
for idx in "${!pids[@]}"; do
    kill -0 "${pids[idx]}" 2>/dev/null || { echo "${names[idx]} has ended:" >&2; cat "$tmp/${names[idx]}.out" >&2; exit 1; }
done
if ! grep -q '"first receipt"' "$tmp/gopherwatch-agent.out"; then
    echo "the agent has no receipt:" >&2
    cat "$tmp/gopherwatch-agent.out" "$tmp/server.out" >&2
    exit 1
fi

# Time on a CPU so far, user and system, in nanoseconds, of all threads: /proc/PID/stat counts in hundredths of a second,
# of which an agent takes three a minute.
cpu_nanos() { # PID
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

kilobytes() { # PID FIELD
    awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"
}

before=()
for pid in "${pids[@]}"; do
    before+=("$(cpu_nanos "$pid")")
done
load_before=$(cut -d' ' -f1 /proc/loadavg)
sleep "$seconds"

json=""
echo "| | resident, MB | of it anonymous, MB | CPU, % of a core | threads |"
echo "|---|---|---|---|---|"
for idx in "${!pids[@]}"; do
    pid=${pids[idx]}
    read -r cpu resident anonymous < <(awk -v nanos="$(($(cpu_nanos "$pid") - before[idx]))" -v seconds="$seconds" \
        -v rss="$(kilobytes "$pid" VmRSS)" -v anon="$(kilobytes "$pid" RssAnon)" \
        'BEGIN { printf "%.3f %.1f %.1f\n", nanos / 1e9 / seconds * 100, rss / 1024, anon / 1024 }')
    threads=$(awk '$1 == "Threads:" { print $2 }' "/proc/$pid/status")
    echo "| ${names[idx]} | $resident | $anonymous | $cpu | $threads |"
    json+=",\"${names[idx]}\":{\"resident_mb\":$resident,\"anonymous_mb\":$anonymous,\"cpu_percent\":$cpu}"
done
load_after=$(cut -d' ' -f1 /proc/loadavg)
n_processes=$(find /proc -maxdepth 1 -name '[0-9]*' | wc -l)
echo "$seconds s, $(nproc) cores, $n_processes processes; load average $load_before before, $load_after after"
echo "{\"seconds\":$seconds,\"load_before\":$load_before,\"load_after\":$load_after$json}"
