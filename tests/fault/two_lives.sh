#!/bin/bash
# Two lives of one run at once, as when a node that was given up still runs: the older one is stopped at each of
# the calls with which it would make and publish a checkpoint, the newer one takes the run over and finishes it, and
# the older one wakes up. It must publish nothing more, say why, and end; the run must be as if it had never woken.
# limit: 300
[ -w /dev/shm ] && export TMPDIR=/dev/shm
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 2 2 true
config "$T/c.yaml" "$T/m"
sets=(--set model.init=random --set schedule='{kind: constant}' --set train.global_batch=1 --set eval.every=0 --set data.valid=[]
    --set data.seq_len=8 --set checkpoint.every=1 --set checkpoint.when_busy=wait)
job=(SLURM_JOB_ID=77 SLURM_JOB_END_TIME=4000000000)
alone() { # RUN LOG STEPS [VARIABLE=VALUE]... [-- OPTION...]
    local run=$1 log=$2 steps=$3 vars=()
    shift 3
    while [ $# -gt 0 ] && [ "$1" != -- ]; do vars+=("$1"); shift; done
    shift
    env "${vars[@]}" "$SOLAR" train "$T/c.yaml" --set run.dir="$run" "${sets[@]}" --set train.steps="$steps" "$@" >"$log" 2>&1 </dev/null
}
# shellcheck disable=SC2034 # it is lib.sh that counts
grep -q __asan "$SOLAR" && { skipped=1; echo "skip two lives: a sanitizer's library must be the first to be loaded"; result; exit; }
shim=(LD_PRELOAD="$BUILD/tests/disk_shim.so" DISK_ROOT="$T/run")
run="$T/run"
alone "$run" "$T/log.txt" 3 "${shim[@]}" DISK_LOG="$T/log" || { tail -n 3 "$T/log.txt"; bad "no recorded run"; result; exit 1; }
mv "$run" "$T/whole"
"$BUILD/tests/power_cut" --list "$T/log" >"$T/calls"

older() { pgrep -f "^$SOLAR train .*run.dir=$run .*train.steps=2000"; }
stopped() { local p; p=$(older) && [ -n "$p" ] && grep -q '^State:.T' "/proc/${p%%$'\n'*}/status" 2>/dev/null; }
for call in 'mkdir .*/step-00000002 ' 'create .*/step-00000002/model' 'sync .*/step-00000002/solar/optim' 'create .*/step-00000002/solar/manifest.json' \
    'rename .*checkpoints/step-00000002' 'sync .*/checkpoints ' 'symlink .*step-00000002' 'rename .*/latest '; do
    calls=$((${calls:-0} + 1)) # every second one, unless FULL=1
    [ "${FULL:-}" = 1 ] || [ $((calls % 2)) -eq 0 ] || continue
    at=$(grep -nE "^$call" "$T/calls" | { [ "${call%latest }" = "$call" ] && head -n 1 || sed -n 2p; } | cut -d: -f1)
    [ "$call" = 'sync .*/checkpoints ' ] && at=$(grep -nE "^$call" "$T/calls" | sed -n 2p | cut -d: -f1)
    rm -rf "$run"
    alone "$run" "$T/older.txt" 2000 "${shim[@]}" "${job[@]}" DISK_FAIL="$at:-1" &
    pid=$!
    for _ in $(seq 400); do stopped && break; sleep 0.02; done
    stopped || { bad "$call: the older life did not stop"; kill -KILL "$(older)"; continue; }
    alone "$run" "$T/newer.txt" 3 "${job[@]}"
    status=$?
    before=$(cd "$run" && find . -type f ! -name 'lives.jsonl' ! -name '.*' -exec sha256sum {} + | sort; readlink latest)
    kill -CONT "$(older)"
    wait $pid
    ended=$?
    after=$(cd "$run" && find . -type f ! -name 'lives.jsonl' ! -name '.*' -exec sha256sum {} + | sort; readlink latest)
    if [ $status -eq 0 ] && [ $ended -eq 1 ] && grep -q 'taken over by another solar train (host' "$T/older.txt" && [ "$before" = "$after" ] &&
        said=$("$BUILD/tests/compare" "$run" "$T/whole" 0); then ok "cut off at: ${call//\\/}"
    else bad "cut off at: $call: the newer ended with $status, the older with $ended: $(tail -n 1 "$T/newer.txt"); $(tail -n 1 "$T/older.txt"); $(diff <(echo "$before") <(echo "$after"))"; fi
done

# Without a job in common the newer one is refused, unless it is told to take over.
rm -rf "$run"
alone "$run" "$T/older.txt" 2000000 -- --set checkpoint.every=0 &
pid=$!
for _ in $(seq 200); do [ "$(grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null)" -gt 5 ] 2>/dev/null && break; sleep 0.05; done
alone "$run" "$T/newer.txt" 3
[ $? -eq 1 ] && grep -q 'in use by another solar train' "$T/newer.txt" && ok "another job is refused" || bad "another job: $(tail -n 1 "$T/newer.txt")"
alone "$run" "$T/newer.txt" 3 -- --take-over
status=$?
wait $pid
ended=$?
if [ $status -eq 0 ] && [ $ended -eq 1 ] && grep -q 'taken over' "$T/older.txt" && said=$("$BUILD/tests/compare" "$run" "$T/whole" 0); then ok "--take-over"
else bad "--take-over: $status, $ended: $(tail -n 1 "$T/newer.txt"); $(tail -n 1 "$T/older.txt"); $said"; fi
result
