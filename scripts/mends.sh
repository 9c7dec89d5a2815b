#!/usr/bin/env bash
# Does a test turn red when a mend is removed? mends.sh [NAME]...: the patches in tests/mends whose names contain one of
# these, or all of them. mends.sh --table: the table of tests/mends/README.md.
#
# In a copy of this tree the tests that the patches name are run once as the tree is, and must pass; then with each patch,
# and must fail: by a failed test, not because it does not compile. The copy and what was built of it stay in $MENDS_DIR, or
# target/mends, from one run to the next; so does what was said, in its folder `said`.
set -euo pipefail
cd "$(dirname "$0")/.."

said_by() { # PATCH KEY: what its head says of it, a line each
    sed -n "/^diff --git/q; s/^$2: //p" "$1"
}

if [ "${1:-}" = --table ]; then
    for patch in tests/mends/*.patch; do
        name=$(basename "$patch" .patch)
        tests=$(said_by "$patch" Test | sed 's/.* //; s/.*/`&`/' | paste -sd ' ')
        echo "| $(said_by "$patch" Hole) | $(said_by "$patch" Mend) | [$name]($name.patch) | $tests |"
    done
    exit
fi

patches=()
for patch in "$PWD"/tests/mends/*.patch; do
    chosen=$([ "$#" -eq 0 ] && echo yes || echo no)
    for part in "$@"; do
        case $(basename "$patch" .patch) in *"$part"*) chosen=yes ;; esac
    done
    [ "$chosen" = no ] || patches+=("$patch")
done
if [ "${#patches[@]}" -eq 0 ]; then
    echo "no patch in tests/mends is named like that" >&2
    exit 64
fi

folder=${MENDS_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/mends}
mkdir -p "$folder/said"
folder=$(cd "$folder" && pwd)
scripts/copy-tree.sh "$folder/tree"
cd "$folder/tree"
# The last run may have built these with a patch, later than they were changed here.
sed -n 's#^+++ b/##p' tests/mends/*.patch | sort -u | xargs touch
# Built often and run briefly: what makes programs fast only makes this slow.
export CARGO_TARGET_DIR=$folder/target CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# The copy may lie below a repository, in which `git apply` would look for its paths elsewhere.
export GIT_CEILING_DIRECTORIES=$folder
# Of one test, in seconds. One that waits for ever for what the mend brought about is as red as one that fails.
limit=${MENDS_LIMIT:-300}

build() { # "cargo test OPTIONS NAME": all but the running of it
    ${1% *} --no-run --locked
}

run() { # The same line, run. 0: passed, 1: failed, 2: there is no such test
    local status=0
    timeout --kill-after=10 "$limit" ${1% *} --locked -- --exact "${1##* }" >"$folder/said/test" 2>&1 || status=$?
    cat "$folder/said/test"
    if [ "$status" -ne 124 ] && ! grep -q '^running 1 test$' "$folder/said/test"; then
        return 2
    fi
    [ "$status" -eq 0 ] || return 1
}

echo "as it is:"
failed=0
while read -r test; do
    build "$test" >"$folder/said/as-it-is" 2>&1 || { cat "$folder/said/as-it-is" && exit 1; }
    if run "$test" >"$folder/said/as-it-is"; then
        printf '  %-9s %s\n' green "${test##* }"
    else
        printf '  %-9s %s\n' NOT-GREEN "${test##* }: see $folder/said/as-it-is"
        cp "$folder/said/as-it-is" "$folder/said/as-it-is.${test##*:}"
        failed=1
    fi
done < <(for patch in "${patches[@]}"; do said_by "$patch" Test; done | sort -u)
[ "$failed" -eq 0 ] || exit 1

echo "without the mend:"
verdict() { # PATCH: in one word, what becomes of its tests
    local test verdict=red
    git apply --recount "$1" || { echo does-not-apply && return; }
    while read -r test; do
        local status=0
        if ! build "$test" >>"$folder/said/$2" 2>&1; then
            verdict=DOES-NOT-COMPILE
            break
        fi
        run "$test" >>"$folder/said/$2" || status=$?
        case $status in
        0) verdict=GREEN ;;
        2) verdict=NOT-RUN ;;
        esac
    done < <(said_by "$1" Test)
    git apply --recount --reverse "$1"
    echo "$verdict"
}
n_bad=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    : >"$folder/said/$name"
    verdict=$(verdict "$patch" "$name")
    printf '  %-9s %s\n' "$verdict" "$name"
    [ "$verdict" = red ] || n_bad=$((n_bad + 1))
done
if [ "$n_bad" -gt 0 ]; then
    echo "$n_bad of ${#patches[@]} are not proved; what was said is in $folder/said" >&2
    exit 1
fi
echo "each of the ${#patches[@]} mends has a test that turns red without it"
