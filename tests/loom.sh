#!/usr/bin/env bash
# Runs the models of what crosses threads: `tests/loom.sh [FILTER]`, with the variables of loom.
# Without LOOM_MAX_PREEMPTIONS, models run with up to two preemptions, those of maps with three. Only
# this crate is compiled with `--cfg loom`, so nothing but it and loom itself is built for this.

set -euo pipefail

# Called by cargo in place of rustc, for the packages of this workspace.
if [ -n "${SEEDBED_LOOM:-}" ]; then
    exec "$@" --cfg loom --extern "loom=$SEEDBED_LOOM" -L "dependency=${SEEDBED_LOOM%/*}" -D warnings
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."

built=$(cargo build --package seedbed-models --message-format=json-render-diagnostics)
loom=$(sed -n 's/.*"filenames":\["\([^"]*\/libloom-[^"]*\.rlib\)".*/\1/p' <<<"$built")
: "${loom:?cargo has named no library of loom}"
export SEEDBED_LOOM="$loom" RUSTC_WORKSPACE_WRAPPER="$PWD/tests/loom.sh"
# With the survey, as the features that it needs are those with which `cargo test` builds dependencies.
# Without optimisation, which takes longer to compile than it saves. The manifest has loom optimised.
built=$(cargo test --no-run --lib -p seedbed -p survey --message-format=json-render-diagnostics)
program=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$built" | tail -n 1)
said=$("$program" "${1:-loom_tests}" | tee /dev/stderr)
[[ "$said" =~ [1-9][0-9]*\ passed ]] || {
    echo "no model has this name, or the build has none" >&2
    exit 1
}
