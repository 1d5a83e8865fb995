#!/bin/bash
# 10 steps, a new process, 10 steps more equal 20 steps bit for bit, optimizer included; on meshes, after SIGKILL and
# SIGTERM too; and a run resumes on another mesh, to rounding.
# limit: 300
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 4 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
deep=(--set model.dus.m=1)
compare() { # LABEL RUN_A RUN_B TOLERANCE
    if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi
}
# The first life of a run of 20 steps that ends at its step 10: the checkpoint of step 20 is taken away, as if the
# machine had died in between.
cut() { rm -rf "$1/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$1/latest"; }

for mesh in 1:1:1 4:2:2 4:1:1; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    set -- --set mesh.pipeline="$pp" --set mesh.tensor="$tp"
    for precision in fp32 bf16; do
        whole="$T/whole-$ranks-$pp-$tp-$precision" parts="$T/parts-$ranks-$pp-$tp-$precision"
        train "$ranks" "$T/c.yaml" "$whole" "${deep[@]}" "$@" --set train.precision=$precision || say "$whole"
        cp -a "$whole" "$parts" && cut "$parts"
        train "$ranks" "$T/c.yaml" "$parts" "${deep[@]}" "$@" --set train.precision=$precision || say "$parts"
        grep -q 'resuming from .*step 10' "$parts.log" || bad "no resume from step 10"
        compare "resume, dp $((ranks / pp / tp)) x pp $pp x tp $tp, $precision" "$parts" "$whole" 0
    done
done

for pair in 1:1:1 2:1:2 3:3:1 8:2:2; do # from dp 1 x pp 2 x tp 2 at step 10 to another mesh
    IFS=: read -r ranks pp tp <<<"$pair"
    run="$T/other-$ranks-$pp-$tp"
    cp -a "$T/whole-4-2-2-fp32" "$run" && cut "$run"
    train "$ranks" "$T/c.yaml" "$run" "${deep[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" || say "$run"
    compare "pp 2 x tp 2 resumed on dp $((ranks / pp / tp)) x pp $pp x tp $tp" "$run" "$T/whole-1-1-1-fp32" 1e-5
done

# With the optimizer's state sharded over data ranks: the same bits, resumed sharded or not, on the same mesh; and from
# and to other meshes to rounding.
shard=(--set optimizer.shard=true)
for precision in fp32 bf16; do
    whole="$T/whole-4-1-1-$precision" parts="$T/shard-$precision"
    train 4 "$T/c.yaml" "$parts" "${deep[@]}" "${shard[@]}" --set train.precision=$precision || say "$parts"
    compare "sharded, dp 4, $precision" "$parts" "$whole" 0
    for to in true false; do
        run="$T/shard-$precision-$to"
        cp -a "$parts" "$run" && cut "$run"
        train 4 "$T/c.yaml" "$run" "${deep[@]}" --set optimizer.shard=$to --set train.precision=$precision || say "$run"
        compare "sharded, dp 4, $precision, resumed with optimizer.shard=$to" "$run" "$whole" 0
    done
done
for pair in 4:1:2 8:2:2 1:1:1; do
    IFS=: read -r ranks pp tp <<<"$pair"
    run="$T/shard-other-$ranks-$pp-$tp"
    cp -a "$T/shard-fp32" "$run" && cut "$run"
    train "$ranks" "$T/c.yaml" "$run" "${deep[@]}" "${shard[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" || say "$run"
    compare "sharded dp 4 resumed on dp $((ranks / pp / tp)) x pp $pp x tp $tp, sharded" "$run" "$T/whole-1-1-1-fp32" 1e-5
done

# A signal to one rank: all save at the same boundary and end with 75.
run="$T/signal"
train 4 "$T/c.yaml" "$run" "${deep[@]}" --set mesh.pipeline=2 --set mesh.tensor=2 --set train.steps=200000 --set schedule='{kind: constant}' --set checkpoint.every=0 --set eval.every=0 &
pid=$!
for _ in $(seq 200); do [ "$(grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null)" -gt 5 ] 2>/dev/null && break; sleep 0.1; done
pkill -TERM -o -f "^$SOLAR train .*run.dir=$run "
wait $pid
status=$?
if [ $status -eq 75 ] && [ -e "$run/latest/solar/state.json" ]; then ok "SIGTERM on one rank: all saved, exit status 75"
else say "$run"; bad "SIGTERM: exit status $status"; fi

# SIGKILL of one rank: the job ends at once, and the next life goes on from the last checkpoint.
run="$T/kill"
args=("${deep[@]}" --set mesh.pipeline=2 --set mesh.tensor=2)
train 4 "$T/c.yaml" "$run" "${args[@]}" --set train.steps=20 --set checkpoint.every=2 &
pid=$!
for _ in $(seq 200); do [ -e "$run/latest" ] && break; sleep 0.05; done
pkill -KILL -o -f "^$SOLAR train .*run.dir=$run "
wait $pid
status=$?
[ $status -eq 137 ] && ok "SIGKILL: exit status 137" || bad "SIGKILL: exit status $status"
train 4 "$T/c.yaml" "$run" "${args[@]}" --set checkpoint.every=10 || say "$run"
compare "after SIGKILL" "$run" "$T/whole-4-2-2-fp32" 0

# A damaged checkpoint is named and set aside, the older one taken; with none whole there is an error.
run="$T/damaged"
cp -a "$T/whole-1-1-1-fp32" "$run"
printf 'x' | dd of="$run/checkpoints/step-00000020/model.safetensors" bs=1 seek=3000 conv=notrunc 2>/dev/null
train 1 "$T/c.yaml" "$run" "${deep[@]}"
grep -q 'moved aside as damaged-step-00000020' "$run.log" && grep -q 'resuming from .*step 10' "$run.log" && [ -d "$run/checkpoints/damaged-step-00000020" ] &&
    ok "damage: named, set aside, fell back" || { say "$run"; bad "damage"; }
compare "after damage" "$run" "$T/whole-1-1-1-fp32" 0
for c in "$run"/checkpoints/step-*; do : >"$c/solar/state.json"; done
train 1 "$T/c.yaml" "$run" "${deep[@]}" && bad "no whole checkpoint: trained on" || ok "no whole checkpoint: exit status $?"
result
