#!/usr/bin/env bash
# Sees to it that programs are there: need.sh PROGRAM:DEBIAN-PACKAGE...
# Missing ones are installed by apt-get when we are root; otherwise it says what to install, and fails.
set -euo pipefail

# Where Debian keeps daemons, which is not in every user's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing=()
for need in "$@"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. On Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# Another apt-get may be at work: wait for it rather than fail.
apt_get() { apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq "$@" </dev/null >&2; }
apt_get install -y --no-install-recommends "${missing[@]}" ||
    { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; }
