#!/usr/bin/env bash
# copy-tree.sh FOLDER: what git would commit, as it stands here, copied into FOLDER, which is made anew. Times are kept, so
# that a build of the copy compiles only what has changed since the last one.
set -euo pipefail
tree=$1
case $tree in
/*) ;;
*) tree=$PWD/$tree ;;
esac
cd "$(dirname "$0")/.."
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then
        printf '%s\0' "$file"
    fi
done | xargs -0 cp --parents --preserve=timestamps -t "$tree"
