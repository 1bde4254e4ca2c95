#!/usr/bin/env bash
# Runs the tests in programs that are linked statically with musl: `tests/musl.sh [TEST PROGRAM..]`.
# Needs the target of rustup. Without a name, all programs of this package run, except that of the
# examples. The tests of `workers` with forked workers are left out, as the library forks none with musl.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

programs=("$@")
if [ "${#programs[@]}" -eq 0 ]; then
    for program in tests/*.rs tests/*/main.rs; do
        name=${program#tests/}
        name=${name%/main.rs}
        name=${name%.rs}
        case $name in
        examples) ;;
        *) programs+=("$name") ;;
        esac
    done
fi

# The C compiler assembles a few instructions, for which it needs no headers of musl.
export CC_x86_64_unknown_linux_musl="${CC_x86_64_unknown_linux_musl:-cc}"
cargo test --target x86_64-unknown-linux-musl --no-fail-fast --package seedbed --lib "${programs[@]/#/--test=}"
