#!/usr/bin/env bash
# Runs the tests of workers without mailboxes, by the socket alone, as it is where there is no memory for one:
# `tests/socket_only.sh [--nextest] [TEST PROGRAM..]`. Only this package is compiled anew. With `--nextest` each test has a
# process of its own, and more of them run at a time than there are processors, as many wait; the tests of `workers` with
# spawned workers are left out.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Called by cargo in place of rustc, for this package and no other.
if [ "${SEEDBED_WRAPS_RUSTC:-}" = yes ]; then
    exec "$@" --cfg seedbed_socket_only
fi

run=(cargo test)
if [ "${1:-}" = --nextest ]; then
    shift
    run=(cargo nextest run --no-fail-fast --test-threads "$((2 * $(nproc)))" -E 'not test(/^spawned::/)')
fi

programs=("$@")
[ "${#programs[@]}" -gt 0 ] || programs=(workers)
export SEEDBED_WRAPS_RUSTC=yes RUSTC_WORKSPACE_WRAPPER="$PWD/tests/socket_only.sh"
"${run[@]}" "${programs[@]/#/--test=}"
