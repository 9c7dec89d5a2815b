#!/usr/bin/env bash
# What our dependencies may be: licences, bans and sources (deny.toml), known vulnerabilities, and none unused.
set -euo pipefail
PATH="${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin:$PATH"

# Building these takes minutes, once: cargo keeps them in its own bin directory.
need_cargo_tool() { # NAME VERSION
    command -v "$1" >/dev/null && return
    echo "installing $1, which takes a few minutes the first time" >&2
    cargo install --locked "$1" --version "$2" --quiet
}
need_cargo_tool cargo-deny ^0.20
need_cargo_tool cargo-machete ^0.9

# cargo-deny looks at the dependencies of every platform, and a build fetches those of this one alone.
cargo fetch --locked --quiet
cargo deny --offline --locked check --hide-inclusion-graph licenses bans sources

# Advisories come from a repository of their own, which not every machine can reach. Without it nothing is known, which
# is not the same as nothing being wrong: say so.
if timeout 60 cargo deny --locked fetch db >/dev/null 2>&1 </dev/null; then
    cargo deny --offline --locked check advisories
else
    echo >&2
    echo "SKIPPED: the advisory database cannot be reached, so known vulnerabilities were NOT checked." >&2
    echo >&2
fi

cargo machete
