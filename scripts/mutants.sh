#!/usr/bin/env bash
# Mutation tests of the rules: mutants.sh [FILE under src/rules]... [-- OPTION of cargo-mutants...]
#
# The rules depend on src/model and src/units alone. They are put into a package with nothing else, because building the
# server's tests for each mutant takes over a minute and building these some seconds. What is left over is in
# mutants.out/missed.txt of its folder ($MUTANTS_DIR; below the temporary one if not set).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=${MUTANTS_DIR:-${TMPDIR:-/tmp}/gopherwatch-mutants}

files=()
while [ "$#" -gt 0 ] && [ "$1" != "--" ]; do
    files+=(--file "src/rules/$1")
    shift
done
[ "${1:-}" != "--" ] || shift

mkdir -p "$folder/src"
rm -rf "$folder"/src/* "$folder/fuzz"
cp -r src/rules.rs src/rules src/model.rs src/model src/units.rs "$folder/src/"
mkdir -p "$folder/fuzz"
cp -r fuzz/src fuzz/seeds "$folder/fuzz/"
cp Cargo.lock "$folder/"
printf 'pub mod model;\npub mod rules;\npub mod units;\n' >"$folder/src/lib.rs"

version() { # CRATE: its line in our Cargo.toml
    grep -m 1 "^$1 = " Cargo.toml
}
{
    printf '[package]\nname = "gopherwatch"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
    # Tests are run a thousand times, and most of their time is proptest's.
    printf '[profile.dev]\nopt-level = 1\ndebug = false\n\n[profile.dev.package."*"]\nopt-level = 2\n\n'
    printf '[dependencies]\ngopherwatch-proto = { path = "%s/proto" }\n' "$root"
    for crate in foldhash globset http jiff parking_lot serde serde_json smallvec strsim toml uuid winnow; do version "$crate"; done
    printf 'thiserror = "2"\n\n[dev-dependencies]\n'
    for crate in allocation-counter expect-test proptest; do version "$crate"; done
} >"$folder/Cargo.toml"

cd "$folder"
# In place: the package is a copy already, and keeps its compiled dependencies from one run to the next.
# Without the test that takes times: on a busy machine it would fail, and a mutant count as caught that nobody saw.
exec cargo mutants --in-place "${files[@]}" --timeout 120 "$@" -- -- --skip reading_takes_time
