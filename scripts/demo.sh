#!/usr/bin/env bash
# A day in two minutes: a server of its own, invented services that breach their limits now and then, and an agent that
# is killed. Prints what happens as it happens, ends by itself, and leaves nothing behind. Exits 1 if the demo did not
# show what it announces. DEMO_SECONDS: how long (120).
set -euo pipefail

bin_dir=$(cd "${BIN_DIR:-target/release}" && pwd)
seconds=${DEMO_SECONDS:-120}
kill_at=35
services=12

# The demo's settings are its own.
unset DATABASE_URL DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME "${!GOPHERWATCH_@}"

dir=$(mktemp -d -t gopherwatch-demo.XXXXXX)
cd "$dir" # away from the repository's .env and gopherwatch.toml
declare -A pids=()

# In a session of its own, so that Ctrl-C reaches this script alone, which then stops everything in order.
start() { # NAME PROGRAM ARGUMENT...
    local name=$1
    shift
    : >"$name.log"
    setsid "$@" </dev/null >"$name.log" 2>&1 &
    pids[$name]=$!
}

stop() { # SIGNAL NAME
    local pid=${pids[$2]:-}
    [ -n "$pid" ] || return 0
    unset "pids[$2]"
    kill "-$1" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

clean_up() {
    trap '' INT TERM HUP
    stop TERM doomed
    stop TERM fleet
    stop TERM server
    cd /
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'echo; echo "stopped."; exit 0' INT TERM HUP

now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    echo $((now / 1000))
}

say() { # TEXT: with the time since the fleet's start
    local elapsed=$(($(now_ms) - began))
    printf '%4d.%d s  %s\n' $((elapsed / 1000)) $((elapsed % 1000 / 100)) "$1"
}

# The value of KEY, a string or a number, in a line of JSON.
field() { # LINE KEY
    local rest=${1#*\""$2"\":}
    if [ "$rest" = "$1" ]; then
        return
    fi
    case $rest in
        \"*) rest=${rest#\"} && echo "${rest%%\"*}" ;;
        *) rest=${rest%%,*} && echo "${rest%%\}*}" ;;
    esac
}

fail() {
    echo "demo: $1; the server's last lines:" >&2
    tail -n 20 server.log >&2 || true
    exit 1
}

# Ports that nobody else has: the system chooses them, the log says which.
start server "$bin_dir/gopherwatch-server" --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --log-format json
deadline=$(($(now_ms) + 30000))
until ready=$(grep -m 1 '"message":"ready"' server.log); do
    kill -0 "${pids[server]}" 2>/dev/null || fail "the server did not start"
    [ "$(now_ms)" -lt $deadline ] || fail "the server was not ready within 30 s"
    sleep 0.05
done
grpc=$(field "$ready" grpc)
http=$(field "$ready" http)

cat <<END
A day in two minutes: $services invented services, one report a second from each. Ctrl-C ends it.

  open   http://$http/status             every service, worst first
  curl   http://$http/alerts/active      what fires now
  curl   http://$http/alerts/history     what has fired
  curl   http://$http/metrics            the server's own figures

END

began=$(now_ms)
start fleet "$bin_dir/gopherwatch-agent" --server "$grpc" --simulate "$services" --instance demo
# A second replica of the first service, at the speed of real days: quiet until it is killed.
start doomed "$bin_dir/gopherwatch-agent" --server "$grpc" --simulate 1 --simulate-speed 1 --instance doomed

raised=0 resolved=0 silent=0 first_breach=
exec 3<server.log
while elapsed=$(($(now_ms) - began)) && [ "$elapsed" -lt $((seconds * 1000)) ]; do
    while IFS= read -r line <&3; do
        case $line in
            *'"message":"alert raised"'*)
                say "$(printf '%-8s' "$(field "$line" level)") $(field "$line" summary)"
                if [ "$(field "$line" rule)" = silent ]; then
                    silent=$((silent + 1))
                    say "         that is the killed agent: an orderly stop would have said goodbye and raised nothing"
                else
                    raised=$((raised + 1))
                    first_breach=${first_breach:-$elapsed}
                fi
                ;;
            *'"message":"alert resolved"'*)
                resolved=$((resolved + 1))
                say "resolved $(field "$line" rule) of $(field "$line" service)/$(field "$line" instance): back to $(field "$line" last_value)"
                ;;
        esac
    done
    if [ -n "${pids[doomed]:-}" ] && [ "$elapsed" -ge $((kill_at * 1000)) ]; then
        stop KILL doomed
        say "-------- killed the agent of checkout/doomed with kill -9; after 30 s of silence it is stale, and missed"
    fi
    kill -0 "${pids[server]}" 2>/dev/null || fail "the server ended"
    sleep 0.1
done

echo
echo "The end: $raised breaches raised, $resolved resolved, $silent silent agent missed."
if [ -z "$first_breach" ] || [ "$first_breach" -gt 10000 ]; then
    fail "there was no breach within 10 s"
fi
[ "$resolved" -gt 0 ] || fail "nothing was resolved"
if [ "$seconds" -ge $((kill_at + 45)) ]; then
    [ "$silent" -gt 0 ] || fail "the killed agent was not missed"
fi
