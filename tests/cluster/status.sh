#!/bin/bash
# `solar status` tells where a run stands: not begun, running, done, stopped, killed; idle lives and nodes left out.
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 4 true
config "$T/c.yaml" "$T/m"
run="$T/run"
random=(--set model.init=random)
expect() { # LABEL PATTERN [status options]
    local label=$1 pattern=$2
    shift 2
    if "$SOLAR" status "$run" "$@" >"$T/said" 2>&1 && grep -q -- "$pattern" "$T/said"; then ok "$label"
    else sed 's/^/    /' "$T/said"; bad "$label: expected $pattern"; fi
}

train 1 "$T/c.yaml" "$run" "${random[@]}" || say "$run"
expect "done" '^state *done$'
expect "all steps" '^step *20 of 20'
expect "one life" '"lives":1,.*"from":0,.*"to":20,"code":0' --json
expect "checkpoint" '^20$' --print checkpoint

# a run that goes on, then a life without an end
train 2 "$T/c.yaml" "$run" "${random[@]}" --set train.steps=200000 --set schedule='{kind: constant}' --set eval.every=0 &
pid=$!
for _ in $(seq 200); do [ "$("$SOLAR" status "$run" --print checkpoint)" -gt 20 ] && break; sleep 0.05; done
expect "running" '^state *running$'
expect "time left" '^time left *[0-9].* of training'
pkill -KILL -f "^$SOLAR train .*run.dir=$run "
wait $pid
expect "killed" '^state *killed$'
expect "a killed life" 'ended without a word'
train 2 "$T/c.yaml" "$run" "${random[@]}" --set train.steps=200000 --set schedule='{kind: constant}' --set eval.every=0 &
pid=$!
for _ in $(seq 200); do [ "$(grep -c '"event":"step"' "$run/lives.jsonl")" -ge 3 ] && break; sleep 0.05; done
pkill -TERM -o -f "^$SOLAR train .*run.dir=$run "
wait $pid
expect "stopped" '^state *stopped, to be run again$'
expect "three lives" '^lives *3:'

# what the job writes beside it
at=$("$SOLAR" status "$run" --print checkpoint)
event() { echo "{\"event\":$1,\"time\":1}" >>"$run/lives.jsonl"; }
expect "no idle life" '^0$' --print idle
event '"job","checkpoint":3'
for _ in 1 2 3; do event "\"job\",\"checkpoint\":$at"; done
expect "idle lives since the checkpoint moved" '^3$' --print idle
event "\"job\",\"job\":\"2\",\"checkpoint\":$at"
expect "a job submitted anew starts from none" '^1$' --print idle
event '"death","node":"n1","why":"gone"'
event '"unfit","node":"n2","why":"disk 1 MB/s"'
expect "one death is not enough" '^n2$' --print left-out
event '"death","node":"n1","why":"gone again"'
printf '{"event":"death","node":"n3"' >>"$run/lives.jsonl" # cut by a crash
expect "two are" '^n2,n1$\|^n1,n2$' --print left-out
expect "with the reason" '^left out *n1: died 2 times, last: gone again'
echo >>"$run/lives.jsonl"
event '"fit","node":"n1"'
expect "let back in" '^n2$' --print left-out

"$SOLAR" status "$T" >"$T/said" 2>&1
[ $? -eq 4 ] && ok "not a run: exit status 4" || bad "not a run"
"$SOLAR" status "$run" --print nonsense >"$T/said" 2>&1
[ $? -eq 2 ] && ok "an unknown value: exit status 2" || bad "an unknown value"
result
