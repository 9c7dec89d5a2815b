#!/usr/bin/env bash
# Does the checker of `make chaos` see anything? A copy of this tree is changed so that its store writer loses one alert in
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
scripts/copy-tree.sh "$tree"

# Where the sink hands rows to the store: all of them but those of one alert in 10,000. By the alert, so that giving them
# to the store once more does not mend it.
target=$tree/src/deliver/store.rs
call='self.store.write(rows)?;'
if [ "$(grep -cF "$call" "$target")" -ne 1 ]; then
    echo "nothing is sabotaged: expected one '$call' in src/deliver/store.rs." >&2
    echo "Change \$call in $0 to what the sink calls now." >&2
    exit 1
fi
sed -i 's/self\.store\.write(rows)?;/self.store.write(\&lose_one_in_10_000(rows))?;/' "$target"
cat >>"$target" <<'RUST'

#[expect(clippy::items_after_test_module, reason = "sabotage stands behind everything else")]
fn lose_one_in_10_000(rows: &[Arc<Alert>]) -> Vec<Arc<Alert>> {
    rows.iter().filter(|alert| alert.alert_id.as_u128() % 10_000 != 0).cloned().collect()
}
RUST

build=(cargo build --workspace --bins --locked)
[ "$profile" != release ] || build+=(--release)
[ "$profile" != dev ] || profile=debug
(cd "$tree" && CARGO_TARGET_DIR="$folder/target" "${build[@]}")

# While the database is dead rows of whole episodes gather: one that is lost is missing, not only left firing.
status=0
said=$("$folder/target/$profile/chaos" run --seed "${SEED:-1}" --only outage-killed --outage-percent 100) || status=$?
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
