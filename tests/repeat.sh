#!/usr/bin/env bash
# Runs the tests again and again, to find what fails now and then: `tests/repeat.sh [--load] [TIMES] [PROGRAM..]`.
#
# TIMES is 50 unless given. A PROGRAM is `lib` or the name of a test program; without any, all that run in seconds:
# the compiler's messages, the docs and what builds other programs come out the same each time. With `--load`, two
# endless loops per core run beside them. Stops at the first failure, which it prints; each run may take five minutes.

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
# Built by cargo, or they take long and do the same each time.
slow='^(compile|docs|examples|survey|survey_parts|user_crate|layers)$'

scratch=$(mktemp -d)
burners=()
finish() {
    [ "${#burners[@]}" -eq 0 ] || kill "${burners[@]}"
    rm -rf "$scratch"
}
trap finish EXIT

# Prints "NAME PATH" of each test program.
programs() {
    cargo test --no-run --lib --tests --message-format=json-render-diagnostics |
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
    echo "there is no such test program: $*" >&2
    exit 1
fi
