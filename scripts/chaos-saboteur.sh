#!/usr/bin/env bash
# Does the checker of `make chaos` see anything? A copy of this tree is changed so that its store writer loses one row in
# 10,000, it is built, and a scenario runs against it: that must fail, and say that rows are missing.
#
# The build has a folder of its own, $SABOTEUR_DIR or target/saboteur, and is kept there from one run to the next.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${SABOTEUR_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/saboteur}
profile=${SABOTEUR_PROFILE:-release}

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
tree=$folder/tree
rm -rf "$tree"
mkdir "$tree"
# What git would commit, as it stands here.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then
        printf '%s\0' "$file"
    fi
done | xargs -0 cp --parents --preserve=timestamps -t "$tree"

# Wherever the sink hands rows to the store: all of them but each ten-thousandth.
patched=0
while IFS= read -r file; do
    sed -E -i 's/store\.write\(&([^()]+)\)/store.write(\&lose_one_in_10_000(\&\1))/' "$file"
    cat >>"$file" <<'RUST'

#[expect(clippy::items_after_test_module, reason = "sabotage stands behind everything else")]
fn lose_one_in_10_000<T: Clone>(rows: &[T]) -> Vec<T> {
    static SEEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let is_kept = |_: &&T| SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 10_000 != 9_999;
    rows.iter().filter(is_kept).cloned().collect()
}
RUST
    patched=$((patched + 1))
done < <(grep -rlE 'store\.write\(&[^()]+\)' "$tree/src/deliver.rs" "$tree/src/deliver" --include='*.rs' --exclude-dir=tests --exclude='tests.rs')
if [ "$patched" -ne 1 ]; then
    echo "nothing is sabotaged: expected one file under src/deliver with store.write(&rows), found $patched." >&2
    echo "Change the pattern in $0 to what the sink calls now." >&2
    exit 1
fi

build=(cargo build --workspace --bins --locked)
[ "$profile" != release ] || build+=(--release)
[ "$profile" != dev ] || profile=debug
(cd "$tree" && CARGO_TARGET_DIR="$folder/target" "${build[@]}")

# While the database is dead rows of whole episodes gather: one that is lost is missing, not only left firing.
status=0
said=$("$folder/target/$profile/chaos" run --seed "${SEED:-1}" --only outage-killed --outage-percent 50) || status=$?
printf '%s\n' "$said"
missing=$(printf '%s\n' "$said" | awk '$1 == "outage-killed" { print $7 }')
if [ "$status" -eq 0 ] || [ "${missing:-0}" -eq 0 ]; then
    echo "the checker did NOT see that one row in 10,000 was lost" >&2
    exit 1
fi
# What a failed run leaves for those who look into it: here it was meant to fail.
kept=$(printf '%s\n' "$said" | awk '$1 == "its" && $2 == "files:" { print $3 }')
case $kept in
*/gopherwatch-chaos-*) rm -rf "$kept" ;;
esac
echo "the checker saw it: $missing rows are missing"
