#!/bin/bash
# Saving and stopping on demand and in time: the files SAVE and STOP, SIGUSR2, minutes, the end of the time; and which
# checkpoints stay.
# limit: 200
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 2 2 true
config "$T/c.yaml" "$T/m"
sets=(--set model.init=random --set schedule='{kind: constant}' --set train.global_batch=2 --set eval.every=0 --set data.valid=[] --set checkpoint.every=0)
ranks_of() { pgrep -f "^$SOLAR train .*run.dir=$run "; }
steps_of() { grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null; }
wait_for() { for _ in $(seq 300); do "$@" && return; sleep 0.05; done; false; }
steps() { [ "$(steps_of)" -gt 5 ] 2>/dev/null; }
saved() { [ "$(grep -c 'saved checkpoints' "$run.log")" -ge "$1" ]; }

run="$T/asked"
train 2 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=2000000 &
pid=$!
wait_for steps || bad "the run does not step"
touch "$run/SAVE"
wait_for saved 1 && [ ! -e "$run/SAVE" ] && [ -e "$run/latest/solar/manifest.json" ] && ok "the file SAVE: saved, and the file is gone" || bad "the file SAVE: $(tail -n 1 "$run.log")"
kill -USR2 "$(ranks_of | tail -n 1)"
wait_for saved 2 && ok "SIGUSR2 to one rank: saved" || bad "SIGUSR2: $(tail -n 1 "$run.log")"
touch "$run/STOP"
wait $pid
status=$?
[ $status -eq 75 ] && grep -q 'stopped by the file STOP after step' "$run.log" && [ ! -e "$run/STOP" ] && ok "the file STOP: exit status 75, and the file is gone" || bad "the file STOP: exit status $status"

run="$T/minutes"
train 1 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=2000000 --set checkpoint.minutes=0.02 &
pid=$!
wait_for saved 2 && ok "a checkpoint every 1.2 seconds" || bad "minutes: $(tail -n 1 "$run.log")"
pkill -TERM -f "^$SOLAR train .*run.dir=$run "
wait $pid

# The end of the time, by each of its sources. squeue and scontrol are the test's own.
mkdir "$T/bin"
soon() { date -d "+$1 seconds" "${@:2}"; }
stops() { # LABEL SECONDS [VARIABLE=VALUE]... [-- OPTION...]
    local label=$1 most=$2 vars=() began=$SECONDS status
    shift 2
    while [ $# -gt 0 ] && [ "$1" != -- ]; do vars+=("$1"); shift; done
    shift
    run="$T/time-$label"
    env "${vars[@]}" "$SOLAR" train "$T/c.yaml" --set run.dir="$run" "${sets[@]}" --set train.steps=2000000 --set run.margin=2 "$@" >"$run.log" 2>&1 </dev/null
    status=$?
    [ $status -eq 75 ] && grep -q 'stopped by the end of its time' "$run.log" && [ $((SECONDS - began)) -le "$most" ] && [ -e "$run/latest" ] &&
        ok "the end of the time by $label: stopped in time, exit status 75" || bad "the end of the time by $label: exit status $status after $((SECONDS - began)) s: $(tail -n 1 "$run.log")"
}
stops run.deadline 60 -- --set run.deadline="$(soon 4 +%Y-%m-%dT%H:%M:%S)"
stops SLURM_JOB_END_TIME 60 SLURM_JOB_ID=5 SLURM_JOB_END_TIME="$(soon 4 +%s)"
printf '#!/bin/sh\n[ "$*" = "-h -j 5 -o %%e" ] && echo %s\n' "$(soon 4 +%Y-%m-%dT%H:%M:%S)" >"$T/bin/squeue"
chmod +x "$T/bin/squeue"
stops squeue 60 SLURM_JOB_ID=5 PATH="$T/bin:$PATH"
printf '#!/bin/sh\nexit 1\n' >"$T/bin/squeue"
printf '#!/bin/sh\n[ "$*" = "show job -o 5" ] && echo "JobId=5 StartTime=2001-01-01T00:00:00 EndTime=%s Deadline=N/A"\n' "$(soon 4 +%Y-%m-%dT%H:%M:%S)" >"$T/bin/scontrol"
chmod +x "$T/bin/scontrol"
stops scontrol 60 SLURM_JOB_ID=5 PATH="$T/bin:$PATH"
"$SOLAR" config "$T/c.yaml" --set run.deadline=tomorrow --no-files >"$T/log" 2>&1
[ $? -eq 3 ] && grep -q 'run.deadline: found "*tomorrow"*, expected a time' "$T/log" && ok "a deadline that is no time is refused" || { cat "$T/log"; bad "a deadline that is no time"; }

# Retention: the newest two, every fourth step, and the best of the validation.
run="$T/kept"
train 1 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=11 --set checkpoint='{every: 1, keep: 2, keep_every: 4, keep_best: 1, when_busy: wait}' \
    --set data.valid="[{files: $T/train.h5, samples: 2}]" --set eval.every=3 --set optimizer.lr=1.0e-6 || say "$run"
best=$(for c in 3 6 9 11; do grep -h '"valid_loss"' "$run/metrics.jsonl" | grep "\"step\":$c," | sed "s/.*\"valid_loss\":\([0-9.]*\).*/\1 $c/"; done | sort -g | head -n 1 | cut -d' ' -f2)
want=$(printf 'step-%08d\n' 4 8 10 11 "$best" | sort -u | tr '\n' ' ')
[ "$(ls "$run/checkpoints" | tr '\n' ' ')" = "$want" ] && ok "kept: $want" || bad "kept: $(ls "$run/checkpoints" | tr '\n' ' '), expected $want"
result
