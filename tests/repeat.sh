#!/usr/bin/env bash
# Runs test programs many times, to find tests that fail rarely: `tests/repeat.sh [--load] [TIMES] [PROGRAM..]`.
#
# TIMES is 50 by default. A PROGRAM is `lib` or the name of a test program. Without any, all programs run, except those that
# check compiler messages, docs or built programs, whose results do not vary. With `--load`, two endless loops per core run at
# the same time. Stops at the first failure and prints its output. A run that takes more than five minutes fails.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

load=no
if [ "${1:-}" = --load ]; then
    load=yes
    shift
fi
times=50
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    times=$1
    shift
fi
# Programs that run cargo, or whose results do not vary.
slow='^(api_docs|compile|docs|examples|survey|user_crate|layers)$'

scratch=$(mktemp -d)
burners=()
finish() {
    [ "${#burners[@]}" -eq 0 ] || kill "${burners[@]}"
    rm -rf "$scratch"
}
trap finish EXIT

# Prints a line "NAME PATH" for each test program.
programs() {
    cargo test --no-run --lib --tests --message-format=json-render-diagnostics |
        grep '"test":true},"features"' | # not the programs that the tests run
        sed -n 's/.*"kind":\["\([a-z]*\)"\].*"name":"\([a-z_]*\)".*"executable":"\([^"]*\)".*/\1 \2 \3/p' |
        while read -r kind name path; do
            [ "$kind" = test ] || name=lib
            echo "$name $path"
        done
}

wanted() {
    [ "$#" -gt 1 ] || { [[ ! "$1" =~ $slow ]] && return; }
    local name=$1 other
    shift
    for other in "$@"; do
        [ "$other" != "$name" ] || return 0
    done
    return 1
}

run_once() {
    ulimit -v 16000000
    timeout 300 "$1" >"$scratch/output" 2>&1
}

list=$(programs)
if [ "$load" = yes ]; then
    for _ in $(seq "$((2 * $(nproc)))"); do
        (while :; do :; done) &
        burners+=("$!")
    done
fi

found=0
while read -r name path; do
    wanted "$name" "$@" || continue
    found=$((found + 1))
    began=$SECONDS
    for round in $(seq "$times"); do
        if ! run_once "$path"; then
            cat "$scratch/output"
            echo "FAILED: $name, in run $round of $times" >&2
            exit 1
        fi
    done
    echo "$name: $times runs, $((SECONDS - began)) s"
done <<<"$list"

if [ "$found" -eq 0 ]; then
    echo "no such test program: $*" >&2
    exit 1
fi
