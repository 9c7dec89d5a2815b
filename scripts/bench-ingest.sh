#!/usr/bin/env bash
# What a report costs the server, beside a server that only decodes and counts (examples/baseline): runs of the two by
# turns, a fresh process for each, medians. Prints a table, then a line of JSON for each workload.
#
# bench-ingest.sh [WORK...], by default w1, shuffled and names; all workloads are in `work` below.
# RUNS: of each of the two (3). REPORTS: of a run at full speed (4,000,000). BIN_DIR: where the programs are.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/bench-lib.sh
. scripts/bench-lib.sh

runs=${RUNS:-3}
reports=${REPORTS:-4000000}

# Everything of a workload that a line of it may set.
defaults() {
    services=10000 streams=64 connections='' workers='' rules=3 rate='' n=$reports
    shuffle='' names='' violating=0 baseline=()
}

work() { # NAME
    local n_streams n_rules n_workers
    defaults
    case $1 in
        w1) ;;
        w1b) services=1000 streams=1000 rate=20000 n=400000 ;;
        w1c) rate=100000 n=1000000 ;;
        shuffled) shuffle=1 ;;
        names) names=10000 ;;
        # The share of reports that violate is in percent.
        violating-*) violating=${1#violating-} n=$((reports / 4)) ;;
        # One service on one stream: one lane, in order.
        hot) services=1 streams=1 ;;
        # Beside a server that counts messages without decoding them.
        frames) baseline=(--frames-only) ;;
        streams)
            for n_streams in 1 10 64 1000 10000; do
                defaults
                streams=$n_streams
                # A connection has 256 streams at most.
                if [ "$streams" -gt 1000 ]; then connections=1000; fi
                measure streams "streams: $streams"
            done
            return
            ;;
        rules)
            for n_rules in 10 100 1000; do
                defaults
                rules=$n_rules n=$((n_rules > 100 ? reports / 10 : reports))
                measure rules "rules: $rules"
            done
            return
            ;;
        workers)
            for n_workers in 1 2; do
                defaults
                workers=$n_workers
                measure workers "workers: $workers"
            done
            return
            ;;
        *) fail "no such workload: $1" ;;
    esac
    measure "$1" "$1"
}

# Plain comparisons, none of which holds for the load generator's readings.
rule_file() { # HOW-MANY
    local metrics=(cpu_percent memory_percent request_count disk_percent) idx
    for ((idx = 0; idx < $1; idx++)); do
        printf '[[rules]]\nname = "rule-%d"\nwhen = "%s > %d.%03d"\n' "$idx" "${metrics[idx % 4]}" $((98 + idx / 1000)) \
            $((idx % 1000))
    done
}

# One run of one of the two, whose line of JSON is appended to $tmp/KIND.json.
run_once() { # server|baseline
    local options=()
    if [ "$1" = baseline ]; then
        start baseline "$bin_dir/examples/baseline" "${baseline[@]}"
    else
        start_server ${workers:+--workers "$workers"}
        if [ "$violating" != 0 ]; then options=(--history "$tmp/data/alerts.db"); fi
    fi
    options+=(--services "$services" --streams "$streams" --reports "$n" --violating "$violating%"
        ${connections:+--connections "$connections"} ${rate:+--rate "$rate"} ${shuffle:+--shuffle}
        ${names:+--names-per-stream "$names"})
    generate "$1" --numbered "${options[@]}"
    tail -n 1 "$tmp/load.log" >>"$tmp/$1.json"
    stop "$1"
}

middle() { # server|baseline KEY DIGITS
    local line
    rounded "$3" "$(while read -r line; do field "$line" "$2"; done <"$tmp/$1.json" | median)"
}

measure() { # WORK TITLE
    local load_before load_after idx cpu base ratio per_second base_per_second p50 p99 generator rows=''
    : >"$tmp/server.json"
    : >"$tmp/baseline.json"
    # Rules of one's own replace the three that are built in.
    { [ "$rules" -eq 3 ] || rule_file "$rules"; } >"$tmp/rules.toml"
    load_before=$(load_average)
    for ((idx = 0; idx < runs; idx++)); do
        run_once baseline
        run_once server
    done
    cpu=$(middle server server_cpu_seconds_per_million 3)
    base=$(middle baseline server_cpu_seconds_per_million 3)
    ratio=$(awk -v cpu="$cpu" -v base="$base" 'BEGIN { printf "%.2f", (base > 0 ? cpu / base : 0) }')
    per_second=$(middle server reports_per_second 0)
    base_per_second=$(middle baseline reports_per_second 0)
    p50=$(middle server receipt_p50_ms 1)
    p99=$(middle server receipt_p99_ms 1)
    generator=$(middle server generator_cpu_seconds_per_million 3)
    load_after=$(load_average)
    # The load generator has failed if the rows were not as many as the episodes.
    if [ "$violating" != 0 ]; then rows=$(middle server rows 0); fi
    echo "| $2 | $cpu | $base | $ratio | $per_second | $base_per_second | $p50 / $p99 | ${rows:--} | $load_before, $load_after |"
    {
        printf '{"bench":"ingest","work":"%s","services":%d,"streams":%d,"rules":%d,"workers":%d' \
            "$1" "$services" "$streams" "$rules" "${workers:-$(nproc)}"
        printf ',"violating_percent":%s,"rate":%s,"reports":%d,"runs":%d' "$violating" "${rate:-null}" "$n" "$runs"
        printf ',"server_cpu_s_per_million":%s,"baseline_cpu_s_per_million":%s,"ratio":%s' "$cpu" "$base" "$ratio"
        printf ',"server_reports_per_s":%s,"baseline_reports_per_s":%s' "$per_second" "$base_per_second"
        printf ',"receipt_p50_ms":%s,"receipt_p99_ms":%s,"generator_cpu_s_per_million":%s' "$p50" "$p99" "$generator"
        printf ',"rows":%s,"load_before":%s,"load_after":%s}\n' "${rows:-null}" "$load_before" "$load_after"
    } >>"$tmp/lines.json"
}

echo "Medians of $runs runs each; $(nproc) cores, with the load generator on them."
echo
echo "| work | CPU-s per 1M | baseline's | ratio | reports/s | baseline's | receipts p50 / p99, ms | rows | load average before, after |"
echo "|---|---|---|---|---|---|---|---|---|"
if [ $# -eq 0 ]; then set -- w1 shuffled names; fi
for name; do
    work "$name"
done
echo
cat "$tmp/lines.json"
