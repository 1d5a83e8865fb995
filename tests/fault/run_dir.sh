#!/bin/bash
# What happens to a run directory under a run: a full disk, no right to write, a second run, odd names, a changed
# config, a run that is extended, or begun anew.
# limit: 400
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
tail -c 6000 ../../LICENSE >"$T/other.txt"
tokens "$T/other.h5" "$T/other.txt"
model m 4 4 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
deep=(--set model.dus.m=1 --set schedule='{kind: constant}' --set train.global_batch=2 --set data.seq_len=16 --set eval.every=3 --set checkpoint.every=2)
compare() { # LABEL RUN_A RUN_B
    if said=$("$BUILD/tests/compare" "$2" "$3" 0); then ok "$1: $said"; else bad "$1: $said"; fi
}
# expect LABEL STATUS TEXT RUN: the last command's exit status $? was STATUS, and the log has a line with TEXT
expect() {
    local status=$?
    [ "$status" -eq "$2" ] && grep -q "$3" "$4.log" && ok "$1: exit status $status" || { say "$4"; bad "$1: exit status $status, expected $2 and \"$3\""; }
}
whole="$T/whole"
train 1 "$T/c.yaml" "$whole" "${deep[@]}" --set train.steps=6 || say "$whole"

# A full disk: the older checkpoint stays, training goes on, the end is an error; with room again the run goes on.
if mkdir "$T/disk" && mount -t tmpfs -o size=2800k tmpfs "$T/disk" 2>/dev/null; then
    trap 'umount "$T/disk"; rm -rf "$T"' EXIT
    run="$T/disk/run"
    train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6 --set checkpoint.keep=0 --set checkpoint.when_busy=wait
    expect "a full disk" 6 'training goes on' "$run"
    [ "$(ls -A "$run/checkpoints")" = step-00000002 ] && [ "$(grep -c grad_norm "$run/metrics.jsonl")" -eq 6 ] &&
        ok "a full disk: the older checkpoint is left, and nothing half" || bad "a full disk: $(ls -A "$run/checkpoints")"
    mount -o remount,size=64m "$T/disk"
    train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6 || say "$run"
    grep -q 'resuming from .*step 2$' "$run.log" || bad "no resume from step 2"
    compare "room on the disk again" "$run" "$whole"
else
    skipped=$((skipped + 1))
    echo "skip a full disk: tmpfs cannot be mounted here"
fi

# A directory removed under the run; odd names; extending; nothing to do.
run="$T/a name — with ünïcode"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=4 && rm -rf "$run/checkpoints/step-00000002"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6 || say "$run"
compare "odd name, extended by two steps" "$run" "$whole"
before=$(sha256sum "$run/metrics.jsonl")
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6
expect "a finished run" 0 'nothing to do' "$run"
[ "$before" = "$(sha256sum "$run/metrics.jsonl")" ] && ok "a finished run is left as it is" || bad "a finished run was changed"

# Another config: refused where it would be another run, and then the run's papers stay as they were.
before=$(sha256sum "$run/config.yaml" "$run/plan.txt")
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set model.dus.m=2 --set train.steps=8
expect "another depth plan" 3 'begun with layers' "$run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set run.seed=8 --set train.steps=8
expect "another seed" 3 'order of samples would change' "$run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set data.train="[{files: $T/other.h5}]" --set train.steps=8
expect "other data" 3 'order of samples would change' "$run"
[ "$before" = "$(sha256sum "$run/config.yaml" "$run/plan.txt")" ] && ok "a refused config changes no papers" || bad "a refused config was written into the run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --accept --set data.train="[{files: $T/other.h5}]" --set train.steps=7
expect "other data, accepted" 0 'as accepted' "$run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set data.train="[{files: $T/other.h5}]" --set data.valid="[{files: $T/other.h5, samples: 3}]" --set train.steps=8
expect "another validation set: the base is measured again" 0 'base model: validation loss' "$run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set data.train="[{files: $T/other.h5}]" --set train.global_batch=4 --set train.precision=bf16 --set train.steps=9
expect "another batch and precision" 0 'done: 9 steps' "$run"
grep -q 'config: train.global_batch was 2, is 4: other gradients from here on' "$run.log" && grep -q 'config: train.precision was fp32, is bf16' "$run.log" &&
    ! grep -q 'config: run.dir' "$run.log" && ok "what changed in the config is told" || { grep config: "$run.log"; bad "the changes of the config are not told"; }
"$SOLAR" inspect "$run/latest" --verify >"$T/inspect.txt" 2>&1 && grep -q '^verified: .* every byte' "$T/inspect.txt" && grep -q '^  precision  *BF16' "$T/inspect.txt" &&
    "$SOLAR" inspect "$run/latest" --tensors | grep -q 'embed_tokens.weight.exp_avg_sq .* solar/optimizer-00000-000.safetensors  [0-9a-f]\{32\}' &&
    ok "inspect shows who wrote it and every sum, and verifies" || { cat "$T/inspect.txt"; bad "inspect of a checkpoint"; }

# --fresh.
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6 --fresh
expect "--fresh on a run" 2 'overwrite' "$run"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=6 --fresh --overwrite
compare "--fresh --overwrite" "$run" "$whole"
[ "$(grep -c grad_norm "$run.old-1/metrics.jsonl")" -eq 9 ] && ok "the former run is kept" || bad "the former run is gone"

# Two at once: the second is refused, and the first does not notice.
run="$T/two"
train 1 "$T/c.yaml" "$run" "${deep[@]}" --set train.steps=200000 --set checkpoint.every=0 --set eval.every=0 &
pid=$!
for _ in $(seq 300); do [ "$(grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null)" -gt 5 ] 2>/dev/null && break; sleep 0.1; done
holder=$(pgrep -o -f "^$SOLAR train .*run.dir=$run ")
"$SOLAR" train "$T/c.yaml" --set run.dir="$run" "${deep[@]}" >"$T/second.log" 2>&1 </dev/null
expect "a second run in the same directory" 1 "in use by another solar train (host .*, process $holder)" "$T/second"
"$SOLAR" train "$T/c.yaml" --set run.dir="$run" --fresh --overwrite "${deep[@]}" >"$T/second.log" 2>&1 </dev/null
expect "and so it is with --fresh" 1 'in use by another solar train' "$T/second"
pkill -TERM -o -f "^$SOLAR train .*run.dir=$run "
wait $pid
expect "the first of two" 75 'run the same command' "$run"

# A run directory that may not be written: root may, so the place is a file.
: >"$T/file"
"$SOLAR" train "$T/c.yaml" --set run.dir="$T/file/run" "${deep[@]}" >"$T/nodir.log" 2>&1 </dev/null
expect "a run directory that cannot be made" 6 "$T/file" "$T/nodir"
left=$(find "$T" -name '*tmp*' -not -path "$T")
[ -z "$left" ] && ok "nothing half is left behind" || bad "left behind: $left"
result
