#!/usr/bin/env bash
# What the processes of a section do, and when: every system call, page fault, switch, fork and end, in microseconds, on the
# standard output. Needs root and tracefs; events cost a microsecond each, so lengths of stretches count, not their sums.
#
#   cargo build --release -p seedbed-benches && sudo benches/timeline.sh cold/fork-server >timeline.txt

set -euo pipefail
section=${1:?name a section, as for seedbed-benches}
program=$(dirname "${BASH_SOURCE[0]}")/../target/release/seedbed-benches
tracing=/sys/kernel/tracing
events=(sched/sched_switch sched/sched_wakeup sched/sched_wakeup_new sched/sched_process_fork sched/sched_process_exec
    sched/sched_process_exit raw_syscalls exceptions/page_fault_user)

stop() {
    echo 0 >"$tracing/tracing_on"
    echo >"$tracing/set_event"
    echo nop >"$tracing/current_tracer"
}
trap stop EXIT

stop
echo >"$tracing/trace"
echo 65536 >"$tracing/buffer_size_kb" # for each core; the last events stay
echo mono >"$tracing/trace_clock"
for event in "${events[@]}"; do
    echo 1 >"$tracing/events/$event/enable"
done
echo 1 >"$tracing/tracing_on"
"$program" --quick "$section" >&2
echo 0 >"$tracing/tracing_on"
grep -E 'seedbed|-worker|-fork| exe-' "$tracing/trace"
