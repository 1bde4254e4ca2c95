#!/usr/bin/env bash
# Runs the tests of everything that holds `unsafe` under a sanitizer: `tests/sanitize.sh [address|thread]`. Needs a
# nightly toolchain; without one it says so, and succeeds.
#
# `address` (with its leak check) is the one that counts. `thread` knows only what was compiled for it, and the standard
# library was not: what that orders, by a mutex, a channel or an `Arc`, is a race to it unless it is listed below. It is
# for looking, not for deciding; `tests/loom.sh` decides.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

sanitizer=${1:-address}
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: there is no nightly toolchain, which the sanitizers need"
    exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')

export RUSTFLAGS="-Zsanitizer=$sanitizer"
# A folder of its own, as every crate is built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize"
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
# `sys/image.rs` lets libc search the image of the program, whose gaps the sanitizer takes for overflows.
export ASAN_OPTIONS="intercept_memmem=0:detect_leaks=1"
# What the uninstrumented standard library orders. (What a test forgets on purpose, and the second of two panics, are leaks.)
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
cat >"$suppressions" <<'END'
race:std::sync
race:std::thread
race:alloc::sync::Arc
race:core::sync::atomic
race:async_channel
race:event_listener
race:concurrent_queue
race:async_task
race:async_io
END
export TSAN_OPTIONS="suppressions=$suppressions:halt_on_error=0"
# Fewer random programs, and fewer children: each costs ten times as much here.
export SEEDBED_STRESS_SEEDS=100 SEEDBED_STRESS_CHILDREN=100000

cargo +nightly test --no-fail-fast --target "$host" --lib --test nursery --test cancel --test stress --test every_poll --test tree_var \
    -- --skip leaks_and_nothing_else --skip forgotten --skip of_two_panics --skip a_panic_while_a_cancelled_child \
    --skip though_one_of_them_panics
