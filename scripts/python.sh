#!/usr/bin/env bash
# Prints a Python interpreter that has the packages of a requirements file: python.sh REQUIREMENTS NAME
# It is that of a virtual environment in target/python/NAME, which is made, and its packages fetched, when it is missing or
# the file has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=$1
folder=${CARGO_TARGET_DIR:-$PWD/target}/python/$2
python=$folder/bin/python
# One at a time: tests ask side by side.
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh python3-with-venv:python3-venv python3-with-venv:python3
if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    rm -rf "$folder"
    python3 -m venv "$folder" >&2 || {
        echo "python3 with its venv module is needed. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
        exit 1
    }
    "$python" -m pip install --quiet --disable-pip-version-check --retries 5 -r "$requirements" >&2
    # Last: what was broken off is begun anew.
    cp "$requirements" "$folder/requirements.txt"
fi
echo "$python"
