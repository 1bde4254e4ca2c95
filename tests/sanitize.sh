#!/usr/bin/env bash
# Runs the tests of cancellation, tasks and synchronisation under a sanitizer: `tests/sanitize.sh
# [address|thread]`. Needs a nightly toolchain, and for `thread` its component `rust-src`. Says
# SKIPPED and succeeds where they are missing.
#
# `address` includes the check for leaks. `thread` compiles the standard library, too:
# ThreadSanitizer would report races for what an uninstrumented mutex or channel orders.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

sanitizer=${1:-address}
case $sanitizer in
address) build=() needs=() ;;
thread) build=(-Zbuild-std) needs=(rust-src) ;;
*)
    echo "unknown sanitizer: $sanitizer (address or thread)" >&2
    exit 2
    ;;
esac
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: there is no nightly toolchain"
    exit 0
fi
for component in "${needs[@]}"; do
    if ! rustup component add "$component" --toolchain nightly; then
        echo "SKIPPED: the nightly toolchain has no $component, and rustup could not install it"
        exit 0
    fi
done
host=$(rustc -vV | sed -n 's/^host: //p')

export RUSTFLAGS="-Zsanitizer=$sanitizer"
# Every crate is built again, so in a folder of its own.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize"
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
# `sys/image.rs` lets libc search the image of the program. The sanitizer takes the gaps between
# variables for overflows.
export ASAN_OPTIONS="intercept_memmem=0:detect_leaks=1"
# ThreadSanitizer does not know fences, as this function has one between giving up the last reference
# to a task and freeing it. The models of loom check that.
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
echo "race:seedbed::task::child_ref::free_if_last" >"$suppressions"
export TSAN_OPTIONS="suppressions=$suppressions:halt_on_error=0"
# Fewer random programs and fewer children: each costs ten times as much as without a sanitizer.
export SEEDBED_STRESS_SEEDS=100 SEEDBED_STRESS_CHILDREN=100000

# The skipped tests leak on purpose: they forget a future, or panic twice.
cargo +nightly test --no-fail-fast --target "$host" "${build[@]}" \
    --package seedbed --lib --test nursery --test cancel --test sync --test stress --test every_poll --test tree_var \
    -- --skip leaks_and_nothing_else --skip forgotten --skip of_two_panics --skip a_panic_while_a_cancelled_child \
    --skip even_if_one_drop_panics
