#!/bin/bash
# Disks that fail. Every call of a save fails once, in its turn: the run goes on, says why, and loses nothing. And
# the power is cut after every call of a run, with what was not synced lost, kept, or half kept in any order: what is
# there is whole, and what was confirmed is there.
# In make check a part of the positions; FULL=1: all of them.
# limit: 1200
[ -w /dev/shm ] && export TMPDIR=/dev/shm # what a sync costs is not what is tested
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 2 2 true
sed -i 's/"hidden_size": 48/"hidden_size": 16/; s/"intermediate_size": 90/"intermediate_size": 24/; s/"num_attention_heads": 8/"num_attention_heads": 2/; s/"vocab_size": 261/"vocab_size": 259/' "$T/m/config.json"
printf '{"a": 1}' >"$T/m/tokenizer_config.json"
config "$T/c.yaml" "$T/m"
missed=
sets=(--set model.init=random --set schedule='{kind: constant}' --set train.global_batch=1 --set eval.every=0 --set data.valid=[]
    --set data.seq_len=8 --set checkpoint.every=1 --set checkpoint.when_busy=wait)
alone() { # RUN STEPS [VARIABLE=VALUE]...: without a launcher, so that what is preloaded is preloaded into it alone
    local run=$1 steps=$2
    shift 2
    env "$@" "$SOLAR" train "$T/c.yaml" --set run.dir="$run" "${sets[@]}" --set train.steps="$steps" >"$run.log" 2>&1 </dev/null
}
shim=(LD_PRELOAD="$BUILD/tests/disk_shim.so")
# shellcheck disable=SC2034 # it is lib.sh that counts
grep -q __asan "$SOLAR" && { skipped=1; echo "skip disk: a sanitizer's library must be the first to be loaded"; result; exit; }

alone "$T/clean" 2 || { say "$T/clean"; bad "no clean run"; result; exit 1; }
run="$T/seen"
alone "$run" 3 "${shim[@]}" DISK_ROOT="$run" DISK_LOG="$T/log" || { say "$run"; bad "no recorded run"; result; exit 1; }

# ---- the power is cut
variants=6
[ "${FULL:-}" = 1 ] && variants=40
if said=$("$BUILD/tests/power_cut" "$T/log" "$run" "$T/left" 1 $variants); then ok "power cut: $said, all whole"; else bad "power cut: $said"; fi

for forget in model.safetensors optimizer- manifest.json /solar /checkpoints .life/ .xxh3; do # the test can fail
    if said=$(FORGET=$forget "$BUILD/tests/power_cut" "$T/log" "$run" "$T/left" 1 $variants); then missed+=" $forget"; fi
done
[ -z "${missed:-}" ] && ok "power cut: a sync that is left out is found out" || bad "power cut: unnoticed without the syncs of$missed"

# ---- each call fails once: those between the first file of the first save and its pointer
"$BUILD/tests/power_cut" --list "$T/log" >"$T/calls"
first=$(grep -n '^mkdir .*/step-00000001 ' "$T/calls" | head -n 1 | cut -d: -f1)
last=$(grep -n "^rename .*/latest $run/latest" "$T/calls" | head -n 1 | cut -d: -f1)
last=$((last + 3)) # the sync of the run's directory behind it
stride=9
[ "${FULL:-}" = 1 ] && stride=1
tried=0 wrong=""
# The run is as it would have been. Which call stands at a position is not quite the same every time, as saving runs
# beside training: where it was a write of metrics, lines are missing, and the checkpoint has to be good.
as_it_should_be() { # RUN
    "$BUILD/tests/compare" "$1" "$T/clean" 0 >/dev/null && return
    grep -q 'lines of metrics are lost' "$1.log" && "$SOLAR" inspect "$1/latest" --verify >/dev/null
}
fail() { # POSITION ERRNO TEXT
    local run="$T/failing" call
    call=$(sed -n "$1p" "$T/calls")
    rm -rf "$run" "$run.log"
    alone "$run" 2 "${shim[@]}" DISK_ROOT="$run" DISK_FAIL="$1:$2"
    local status=$?
    tried=$((tried + 1))
    # what cannot be done without is told, with its cause, and what can be done without harms nothing
    if [ $status -ne 0 ] || { [ "$2" != 0 ] && grep -q 'training goes on' "$run.log" && ! grep -q "$3" "$run.log"; } ||
        ! as_it_should_be "$run" || [ -n "$(find "$run" -name '*tmp*')" ]; then
        wrong+=" [$call fails with $3: exit status $status: $(grep -m1 -E 'warning|error' "$run.log")]"
    fi
    grep -q 'training goes on' "$run.log" && told=$((told + 1))
}
told=0
for ((i = first; i <= last; i += stride)); do
    case $((i / stride % 3)) in
        0) fail $i 28 'No space left' ;;
        1) fail $i 5 'Input/output error' ;;
        2) fail $i 116 'Stale file handle' ;;
    esac
done
for i in $(grep -n '^write' "$T/calls" | cut -d: -f1 | awk -v a="$first" -v b="$last" -v s=$stride '$1 >= a && $1 <= b && NR % s == 0'); do fail "$i" 0 'short'; done
[ -z "$wrong" ] && [ $told -gt $((tried / 4)) ] && ok "$tried calls of a save failed in turn, $told of them told: nothing lost" || bad "$tried calls failed, $told told, wrong:$wrong"
result
