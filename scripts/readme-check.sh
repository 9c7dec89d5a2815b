#!/usr/bin/env bash
# Runs the commands of README.md as a newcomer would and compares what they print with what README.md shows, but for
# times, ids and the like. The commands are read from README.md's `console` blocks, so that they cannot drift apart.
#
# A block holds `$ command` lines, each followed by its output; a line `...` stands for any lines. `make run-*` runs on
# beside the commands after it: what is shown must appear among its lines, in order. Also checked: gopherwatch.toml
# without its `#` is a valid file, .env.example is one too, and `make run-agent` shows this host within 3 s.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

scripts/need.sh curl:curl setsid:util-linux mariadbd:mariadb-server mariadb-install-db:mariadb-server mysql:mariadb-client

# README.md names target/ and the default ports, and begins with no database.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR DATABASE_URL DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME "${!GOPHERWATCH_@}"
if [ -e .env ]; then
    echo "readme-check: .env is in the way: README.md begins without one" >&2
    exit 1
fi
for port in 8080 50051; do
    if (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; then
        echo "readme-check: port $port, which README.md uses, is taken by another program" >&2
        exit 1
    fi
done
# What a terminal would choose.
export GOPHERWATCH_LOG_FORMAT=text

tmp=$(mktemp -d -t gopherwatch-readme.XXXXXX)
db_port=0
declare -A pids=()

# In a session of its own: a signal to this script does not reach it, so that each is stopped once and in order.
start() { # NAME COMMAND...
    local name=$1
    shift
    setsid "$@" </dev/null >"$tmp/$name.out" 2>&1 &
    pids[$name]=$!
}

stop() { # NAME
    local pid=${pids[$1]:-}
    [ -n "$pid" ] || return 0
    unset "pids[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

clean_up() {
    local name
    for name in agent server example mariadbd; do
        stop "$name"
    done
    rm -rf "$tmp" .env
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

fail() { # MESSAGE [FILE...]
    echo "readme-check: $1" >&2
    shift
    local file
    for file in "$@"; do
        sed 's/^/    /' "$file" >&2
    done
    exit 1
}

# Waits until COMMAND succeeds; false after SECONDS, or once the program NAME has ended.
await() { # SECONDS NAME COMMAND...
    local deadline=$((SECONDS + $1)) name=$2
    shift 2
    until "$@"; do
        kill -0 "${pids[$name]}" 2>/dev/null || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# Replaces what differs from run to run and from machine to machine.
normalise() {
    sed -E \
        -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/ID/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+Z?/TIME/g' \
        -e 's/[0-9]+(\.[0-9]+)? ms/N ms/g' \
        -e 's/"id":[0-9]+/"id":N/g' \
        -e 's/(workers|epoch|peer): [^,]*/\1: N/g' \
        -e 's/(started, service: )[^,]*(, instance: )[^,]*/\1HOST\2HOST/' \
        -e "s#$tmp/data[0-9]*#./data#g" \
        -e "s/127\.0\.0\.1:$db_port/127.0.0.1:3306/g"
}

# The steps of one part of README.md: PREFIX.N.command and PREFIX.N.shown for each command, in order.
steps() { # PREFIX AWK-CONDITION
    awk -v prefix="$1" "
        /^## / { heading = \$0 }
        /^\`\`\`/ { inside = /^\`\`\`console\$/ && ($2); next }
        inside && /^\\\$ / { n++; print substr(\$0, 3) > (prefix \".\" n \".command\"); printf \"\" > (prefix \".\" n \".shown\"); next }
        inside && n { print > (prefix \".\" n \".shown\") }
        END { print n + 0 }
    " README.md
}

# Whether the lines of the first file are among those of the second, in order.
in_order() { # SHOWN PRINTED
    awk 'BEGIN { n_wanted = n_found = 0 }
         FNR == NR { if ($0 != "...") wanted[n_wanted++] = $0; next }
         n_found < n_wanted && $0 == wanted[n_found] { n_found++ }
         END { exit n_found < n_wanted }' <(normalise <"$1") <(normalise <"$2")
}

prints_what_is_shown() { # PREFIX.N COMMAND
    bash -c "$2" </dev/null >"$1.printed" 2>&1 || echo "(it failed: exit code $?)" >>"$1.printed"
    # awk ends the last line, which may have no end.
    diff <(normalise <"$1.shown") <(awk 1 "$1.printed" | normalise) >"$1.diff"
}

run_step() { # PREFIX.N
    local command shown=$1.shown name
    command=$(cat "$1.command")
    echo "    \$ $command"
    case $command in
        "make run-"*)
            name=${command#make run-}
            start "$name" bash -c "exec $command"
            # It may have to be built first; its own lines come soon after.
            if ! await 3600 "$name" grep -q ' INFO ' "$tmp/$name.out" ||
                ! await 20 "$name" in_order "$shown" "$tmp/$name.out"; then
                fail "README.md shows lines that \`$command\` did not print; shown, then printed:" "$shown" "$tmp/$name.out"
            fi
            ;;
        *)
            command=${command//127.0.0.1:3306/127.0.0.1:$db_port}
            # A receipt says that an alert is durable; the history has it some milliseconds later.
            local tries=1
            [[ $command == curl* || $command == "mysql -t"* ]] && tries=50
            until prints_what_is_shown "$1" "$command"; do
                tries=$((tries - 1))
                [ "$tries" -gt 0 ] || fail "\`$command\` prints something else (>) than README.md shows (<):" "$1.diff"
                sleep 0.1
            done
            ;;
    esac
}

run_steps() { # PREFIX AWK-CONDITION
    local n i
    n=$(steps "$1" "$2")
    [ "$n" -ge 3 ] || fail "README.md has $n commands where several were expected"
    for ((i = 1; i <= n; i++)); do
        run_step "$1.$i"
    done
}

this_host_is_shown() {
    curl -sf localhost:8080/status | grep -q "\"service\":\"$(hostname)\".*\"cpu_percent\":"
}

echo "readme-check: the quick start, on empty data"
export GOPHERWATCH_DATA_DIR=$tmp/data1
run_steps "$tmp/quick" 'heading == ""'

echo "readme-check: the tables of options and figures"
for program in server agent; do
    scripts/options.sh "target/release/gopherwatch-$program" >"$tmp/$program.table"
    while IFS= read -r row; do
        grep -qxF -- "$row" README.md || fail "gopherwatch-$program --help says, and README.md does not: $row"
    done <"$tmp/$program.table"
done
curl -sf localhost:8080/metrics | awk '/^# TYPE/ { print $3 }' >"$tmp/figures"
while IFS= read -r figure; do
    grep -qF -- "\`$figure\`" README.md || fail "/metrics has $figure, and README.md does not name it"
done <"$tmp/figures"
[ -s "$tmp/figures" ] || fail "/metrics is empty"

echo "readme-check: make run-agent shows this host"
start agent make run-agent
# Cargo finds that all is built; the agent starts after that.
await 60 agent grep -q 'INFO started' "$tmp/agent.out" || fail "the agent did not start:" "$tmp/agent.out"
began=${EPOCHREALTIME/[.,]/}
await 10 agent this_host_is_shown || fail "this host is not in /status:" "$tmp/agent.out"
took=$((${EPOCHREALTIME/[.,]/} - began))
echo "    in /status after $((took / 1000)) ms"
[ "$took" -le 3000000 ] || fail "that is more than 3 s"
stop agent
stop server
grep -q 'shutdown ended, outcome: Clean' "$tmp/server.out" || fail "the server did not stop in order:" "$tmp/server.out"

echo "readme-check: the examples are valid"
mkdir "$tmp/examples"
sed -n 's/^#\([^ #]\)/\1/p' gopherwatch.toml >"$tmp/examples/gopherwatch.toml"
cp .env.example "$tmp/examples/.env"
n_rules=$(grep -c '^\[\[rules\]\]' "$tmp/examples/gopherwatch.toml")
# The example reads both files from its working directory.
server=$PWD/target/release/gopherwatch-server
start example env -u GOPHERWATCH_DATA_DIR -C "$tmp/examples" "$server" --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0
await 20 example grep -q 'INFO     ready' "$tmp/example.out" ||
    fail "gopherwatch.toml or .env.example is no valid file:" "$tmp/example.out"
grep -q "rules: $n_rules, rules_from: gopherwatch.toml" "$tmp/example.out" ||
    fail "the server did not take the $n_rules rules of gopherwatch.toml:" "$tmp/example.out"
stop example

echo "readme-check: with MySQL, on a private MariaDB"
export GOPHERWATCH_DATA_DIR=$tmp/data2
mkdir "$tmp/mariadb"
mariadb-install-db --no-defaults --user="$(id -un)" --auth-root-authentication-method=normal \
    --datadir="$tmp/mariadb/data" >"$tmp/install.out" 2>&1 || fail "MariaDB cannot be set up:" "$tmp/install.out"
# `mysql` as its administrator would have it set up: the system's own settings name another server.
mkdir "$tmp/bin"
printf '[client]\nuser=root\nsocket=%s\n' "$tmp/mariadb/socket" >"$tmp/my.cnf"
printf '#!/bin/sh\nexec %s --defaults-file=%s "$@"\n' "$(command -v mysql)" "$tmp/my.cnf" >"$tmp/bin/mysql"
chmod +x "$tmp/bin/mysql"
PATH="$tmp/bin:$PATH"
# Another program can take the port between looking and starting: then look again.
for try in 1 2 3 4 5; do
    db_port=$((20000 + RANDOM % 12000))
    start mariadbd mariadbd --no-defaults --user="$(id -un)" --bind-address=127.0.0.1 --port="$db_port" \
        --datadir="$tmp/mariadb/data" --socket="$tmp/mariadb/socket" --pid-file="$tmp/mariadb/pid"
    if await 60 mariadbd mysql -e 'SELECT 1' >/dev/null 2>&1; then
        break
    fi
    [ "$try" -lt 5 ] || fail "mariadbd does not start:" "$tmp/mariadbd.out"
    stop mariadbd
done
run_steps "$tmp/mysql" 'heading == "## With MySQL"'
stop agent
stop server
stop mariadbd

echo "readme-check: README.md shows what happens"
