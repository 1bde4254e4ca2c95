#!/usr/bin/env bash
# Runs the models of what crosses threads: `tests/loom.sh [FILTER]`, with LOOM_MAX_PREEMPTIONS (2, for some 3) and the other variables
# of loom. Only this crate is compiled with `--cfg loom`, so nothing but it and loom itself is built for this.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The models are slow without optimisation, and what is slow is in this crate and in loom.
built=$(cargo rustc --lib --profile test --message-format=json-render-diagnostics -- --cfg loom -C opt-level=1 -D warnings)
program=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$built" | tail -n 1)
"$program" "${1:-loom_tests}"
