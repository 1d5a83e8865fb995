#!/bin/bash
# NaN in one rank's gradient at one step: no rank updates, all agree; on_bad_step: stop ends with exit status 7, skip goes
# on with finite weights, counts and names the samples; too many in a row end the run even so.
cd "$(dirname "$0")/../layout" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
config "$T/c.yaml" "$T/m"
mesh=(model.init=random mesh.pipeline=2 mesh.tensor=2)
nan_step() { # RUN RANK STEP [KEY=VALUE]...
    local run=$1 rank=$2 step=$3
    shift 3
    mpirun -np 4 "$BUILD/tests/trouble" "$T/c.yaml" "$run" "$rank" "$step" nan "$@" "${mesh[@]}" >"$run.log" 2>&1 </dev/null
}
sets=()
for s in "${mesh[@]}"; do sets+=(--set "$s"); done

for rank in 0 1 3; do
    run="$T/skip-$rank"
    nan_step "$run" $rank 5 train.on_bad_step=skip
    status=$?
    if [ $status -eq 0 ] && grep -q 'step 5 skipped: loss or gradient norm not finite.*samples 32 to 39' "$run.log" &&
        grep -q '"skipped": *1' "$run/latest/solar/state.json" && ! grep -qi 'nan' "$run/metrics.jsonl"; then
        ok "NaN on rank $rank at step 5: skipped by all, counted"
    else say "$run"; bad "NaN on rank $rank, skip: exit status $status"; fi
    if said=$("$BUILD/tests/compare" "$run" "$T/skip-0" 0); then ok "the same weights whichever rank had it"
    else bad "weights differ: $said"; fi
done
run="$T/stop"
nan_step "$run" 2 5
status=$?
if [ $status -eq 7 ] && grep -q 'step 5: loss or gradient norm not finite.*Samples 32 to 39' "$run.log" && [ ! -e "$run/latest" ]; then
    ok "stop: exit status 7, the samples named, nothing saved"
else say "$run"; bad "stop: exit status $status"; fi

# Every step is a spike when a thousandth of a standard deviation makes one: the run ends after max_skipped in a row.
run="$T/row"
train 4 "$T/c.yaml" "$run" "${sets[@]}" --set train.on_bad_step=skip --set train.spike_sigma=0.001 --set train.spike_window=2 \
    --set train.max_skipped=2 --set optimizer.lr=0.5 --set schedule='{kind: constant}' --set train.steps=200
status=$?
if [ $status -eq 7 ] && grep -q 'skipped: .* spike' "$run.log"; then ok "too many bad steps in a row: exit status 7"
else say "$run"; bad "too many in a row: exit status $status"; fi

# The guard's memory survives a resume.
for part in whole parts; do
    run="$T/$part"
    more=(--set train.on_bad_step=skip --set train.spike_sigma=1.5 --set train.spike_window=4 --set train.max_skipped=50)
    train 4 "$T/c.yaml" "$run" "${sets[@]}" "${more[@]}" || { say "$run"; bad "guarded run"; }
    [ $part = parts ] || continue
    rm -rf "$run/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$run/latest"
    train 4 "$T/c.yaml" "$run" "${sets[@]}" "${more[@]}" || { say "$run"; bad "guarded run, resumed"; }
done
n=$(grep -c '"skipped"' "$T/whole/metrics.jsonl")
if said=$("$BUILD/tests/compare" "$T/parts" "$T/whole" 0) && [ "$n" -gt 0 ] &&
    cmp -s "$T/parts/latest/solar/state.json" "$T/whole/latest/solar/state.json"; then ok "guard resumed, $n steps skipped in both"
else bad "guard resumed: $said ($n skipped)"; fi
if said=$("$SOLAR" data --audit "$T/parts" 2>&1) && [[ $said == *"audited: 20 steps, samples 0 to 159"* ]]; then ok "the audit counts skipped steps"
else bad "audit: $said"; fi
result
