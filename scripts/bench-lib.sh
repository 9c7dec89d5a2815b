# shellcheck shell=bash
# What the bench scripts share: processes that end with the script, a directory that goes with it, and small sums.
# To be sourced after `set -euo pipefail`.

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# The benches' settings are their own.
unset DATABASE_URL DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME "${!GOPHERWATCH_@}"

bin_dir=$(cd "${BIN_DIR:-target/release}" && pwd)
tmp=$(mktemp -d -t gopherwatch-bench.XXXXXX)
declare -A pids=()

clean_up() {
    trap '' INT TERM HUP
    for name in "${!pids[@]}"; do
        stop "$name"
    done
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

fail() { # TEXT [LOG...]
    echo "${0##*/}: $1" >&2
    shift
    [ $# -eq 0 ] || tail -n 20 "$@" >&2
    exit 1
}

# Starts a process in $tmp, away from the repository's .env; its output is in $tmp/NAME.log. It has a session of its own, so that Ctrl-C reaches the script alone,
# which then ends the process with all that it has started.
start() { # NAME COMMAND...
    local name=$1
    shift
    # Emptied here: the process itself may begin only when `ready` has read what the last one of this name said.
    : >"$tmp/$name.log"
    setsid env -C "$tmp" "$@" </dev/null >>"$tmp/$name.log" 2>&1 &
    pids[$name]=$!
}

# The same to its end, with its output shown, and temporary files that go with the script's.
run() { # NAME COMMAND...
    local name=$1
    shift
    TMPDIR=$tmp setsid "$@" </dev/null &
    pids[$name]=$!
    finish "$name"
}

# Waits for a process, so that a signal to the script is heard meanwhile; fails as it does.
finish() { # NAME
    wait "${pids[$1]}" || return
    unset "pids[$1]"
}

# SIGTERM to the process and its children, and SIGKILL to those that have not ended ten seconds later.
stop() { # NAME
    local pid=${pids[$1]:-} n=0
    [ -n "$pid" ] || return 0
    unset "pids[$1]"
    kill -- "-$pid" 2>/dev/null || true
    while kill -0 -- "-$pid" 2>/dev/null && [ $((n += 1)) -le 200 ]; do
        sleep 0.05
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# The value of KEY, a string or a number, in a line of JSON.
field() { # LINE KEY
    local rest=${1#*\""$2"\":}
    [ "$rest" != "$1" ] || return 0
    case $rest in
        \"*) rest=${rest#\"} && echo "${rest%%\"*}" ;;
        *) rest=${rest%%,*} && echo "${rest%%\}*}" ;;
    esac
}

# Waits until the process says that it is ready, and prints the address that it says under KEY.
ready() { # NAME KEY
    local line n=0
    until line=$(grep -m 1 '"message":"ready"' "$tmp/$1.log"); do
        kill -0 "${pids[$1]}" 2>/dev/null || fail "$1 has ended:" "$tmp/$1.log"
        [ $((n += 1)) -le 600 ] || fail "$1 is not ready within 30 s:" "$tmp/$1.log"
        sleep 0.05
    done
    field "$line" "$2"
}

# The rules of servers to come; empty: the built-in ones.
: >"$tmp/rules.toml"

# A server on free ports, with empty data in $tmp/data.
start_server() { # ARGUMENT...
    rm -rf "$tmp/data"
    start server "$bin_dir/gopherwatch-server" --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --log-format json \
        --config "$tmp/rules.toml" --data-dir "$tmp/data" "$@"
}

# Runs the load generator against the process NAME. Its line of JSON is the last one of $tmp/load.log.
generate() { # NAME ARGUMENT...
    local name=$1 addr
    shift
    addr=$(ready "$name" grpc)
    start load "$bin_dir/examples/load" --server "http://$addr" --server-pid "${pids[$name]}" "$@"
    finish load || fail "the load generator and $name say:" "$tmp/load.log" "$tmp/$name.log"
}

# A port that nothing listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (: </dev/tcp/127.0.0.1/$port) 2>/dev/null || break
    done
    echo "$port"
}

kilobytes() { # PID FIELD
    awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"
}

load_average() {
    cut -d' ' -f1 /proc/loadavg
}

# The median of the numbers on stdin; of an even count, the lower of the two in the middle.
median() {
    sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

rounded() { # DIGITS NUMBER
    LC_ALL=C printf "%.$1f" "$2"
}
