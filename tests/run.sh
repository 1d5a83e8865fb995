#!/bin/bash
# Runs the tests and ends with one line: N passed, N failed, N skipped. Exit status 1 if any failed.
# usage: run.sh BUILD [FOLDER | FOLDER/NAME]...   below tests/, default all; BUILD holds the built program
# V=1 in the environment: tests that pass are shown in full too
#
# A test is a cmocka program BUILD/tests/test_* made from tests/unit, or a script tests/FOLDER/*.sh whose
# last line is "N passed, N failed, N skipped". Files named lib*.sh are helpers, not tests. A script may
# raise its time limit with a line "# limit: SECONDS".
set -u
cd "$(dirname "$0")/.." || exit 2
[ $# -ge 1 ] || { echo "usage: tests/run.sh BUILD [FOLDER | FOLDER/NAME]..." >&2; exit 2; }
BUILD=$(realpath "$1") || exit 2
shift
folders=("$@")
export BUILD SOLAR=$BUILD/solar

. jobs/local_mpi.sh
export LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0:${LSAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"

LIMIT=${TEST_LIMIT:-300}
passed=0 failed=0 skipped=0
log=$(mktemp) || exit 2
running= # the test's `timeout`, which ends all that the test started
trap 'rm -f "$log"' EXIT
trap 'if [ -n "$running" ]; then kill $running; fi; exit 130' INT TERM HUP

selected() { # FOLDER NAME
    [ ${#folders[@]} -eq 0 ] && return 0
    local f
    for f in "${folders[@]}"; do [ "$f" = "$1" ] || [ "$f" = "$1/$2" ] && return 0; done
    return 1
}

# Counts of a cmocka program's output in $log: "passed failed skipped".
count_cmocka() {
    sed 's/^\(\[  [A-Z ]* \]\) tests: /\1 /' "$log" | # so from cmocka 1.1.7 on
        awk '/^\[  PASSED  \]/ {p += $4}
             /^\[  FAILED  \] [0-9]+ test/ {f += $4}
             /^\[  SKIPPED \] [0-9]+ test/ {s += $4}
             END {print p + 0, f + 0, s + 0}'
}

# Counts of the last result line of a script.
count_script() {
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log" | tail -n 1
}

# run NAME LIMIT COUNTER COMMAND...: one line when it is well, all of its output when it is not
run() {
    local name=$1 limit=$2 counter=$3 began=$SECONDS status=0 p f s
    shift 3
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null &
    running=$!
    wait $running || status=$?
    running=
    read -r p f s <<<"$($counter)"
    : "${p:=0}" "${f:=0}" "${s:=0}"
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        echo "$name: exit status $status$([ "$status" -eq 124 ] || [ "$status" -eq 137 ] &&
            echo " (time limit $limit s)")" >>"$log"
    elif [ "$status" -eq 0 ] && [ $((p + f + s)) -eq 0 ]; then
        f=1
        echo "$name: printed no result" >>"$log"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ] || [ -n "${V:-}" ]; then sed 's/^/    /' "$log"; fi
    if [ "$f" -gt 0 ]; then
        printf 'FAIL %-40s %4d passed, %d failed, %d skipped  (%d s)\n' "$name" "$p" "$f" "$s" $((SECONDS - began))
    else
        printf 'ok   %-40s %4d passed%s  (%d s)\n' "$name" "$p" "$([ "$s" -eq 0 ] || echo ", $s skipped")" \
            $((SECONDS - began))
        [ "$s" -eq 0 ] || grep -i 'skip' "$log" | grep -vE '^[0-9]+ passed|SKIPPED TEST|listed below' | sort -u | head -n 5 | sed 's/^/       /'
    fi
}

for source in tests/unit/test_*.c; do
    name=$(basename "$source" .c)
    [ -e "$source" ] && selected unit "$name" || continue
    run "unit/$name" "$LIMIT" count_cmocka "$BUILD/tests/$name"
done
for script in tests/*/*.sh; do
    folder=$(basename "$(dirname "$script")")
    case $folder/$(basename "$script") in setup/* | lint/* | bench/* | gpu/* | */lib*.sh) continue ;; esac
    name=$(basename "$script" .sh)
    selected "$folder" "$name" || continue
    limit=$(sed -n 's/^# limit: \([0-9][0-9]*\).*/\1/p' "$script" | head -n 1)
    run "$folder/$name" "${limit:-$LIMIT}" count_script bash "$script"
done

echo "time: $SECONDS s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
