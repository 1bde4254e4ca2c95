#!/usr/bin/env bash
# Runs the models of what crosses threads: `tests/loom.sh [FILTER]`, with the variables of loom.
# Without LOOM_MAX_PREEMPTIONS, models run with up to two preemptions, those of maps with three. Only
# this crate is compiled with `--cfg loom`, so nothing but it and loom itself is built for this.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without optimisation, which takes longer to compile than it saves. The manifest has loom optimised.
built=$(cargo rustc --lib --profile test --message-format=json-render-diagnostics -- --cfg loom -D warnings)
program=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$built" | tail -n 1)
"$program" "${1:-loom_tests}"
