#!/usr/bin/env bash
# Runs the tests of workers without mailboxes, by the socket alone, as it is where there is no memory for one:
# `tests/socket_only.sh [TEST PROGRAM..]`. Only this package is compiled anew, in a target folder of its own.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Called by cargo in place of rustc, for this package and no other.
if [ "${SEEDBED_WRAPS_RUSTC:-}" = yes ]; then
    exec "$@" --cfg seedbed_socket_only
fi

programs=("$@")
[ "${#programs[@]}" -gt 0 ] || programs=(
    fork_server shared_memory worker_cache worker_calls worker_cancel worker_deaths worker_faults worker_frames
    worker_groups worker_limits worker_mailbox worker_misdeeds worker_programs worker_runs worker_statistics
    worker_surroundings
)
export SEEDBED_WRAPS_RUSTC=yes RUSTC_WORKSPACE_WRAPPER="$PWD/tests/socket_only.sh"
cargo test "${programs[@]/#/--test=}"
