#!/bin/bash
# New layers that begin as zeros: the deepened model starts at its base's own loss, to the last digit; with the old
# layers frozen only the new ones move; every mesh trains like one rank, and resumes bit for bit.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
echo 'lr_scale: {old: 0}' >>"$T/c.yaml"
insert=(--set model.dus='{insert: {every: 2}}') # 0-1,1z,2-3,3z
first() { sed -n "s/.*\"$2\": *\([0-9.e-]*\).*/\1/p" "$1" | head -n 1; }

for mesh in 1:1:1 4:2:2 4:1:4 2:2:1; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    run="$T/run-$ranks-$pp" label="pp $pp x tp $tp, $ranks ranks"
    train "$ranks" "$T/c.yaml" "$run" "${insert[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" || say "$run"
    base=$(first "$run/metrics.jsonl" base_valid_loss) deep=$(first "$run/metrics.jsonl" valid_loss)
    if [ -n "$base" ] && [ "$base" = "$deep" ]; then ok "$label: begins at the base's loss $base"; else bad "$label: base $base, deepened $deep"; fi
    moved "$run" >"$T/moved"
    if [ "$(grep -Ec '^model\.layers\.[25]\.' "$T/moved")" -eq 18 ] && [ "$(wc -l <"$T/moved")" -eq 18 ]; then ok "$label: only new layers moved"
    else bad "$label: moved $(tr '\n' ' ' <"$T/moved")"; fi
    if said=$("$BUILD/tests/compare" "$run" "$T/run-1-1" 1e-5); then ok "$label: $said"; else bad "$label: $said"; fi
done

run="$T/parts"
cp -a "$T/run-4-2" "$run" && rm -rf "$run/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$run/latest"
train 4 "$T/c.yaml" "$run" --set model.dus.layers=0-1,1z,2-3,3z --set mesh.pipeline=2 --set mesh.tensor=2 || say "$run"
if said=$("$BUILD/tests/compare" "$run" "$T/run-4-2" 0); then ok "resumed with the plan written out: $said"; else bad "resume: $said"; fi
train 1 "$T/c.yaml" "$run" --set model.dus.layers=0-1,1c,2-3,3z && bad "another plan: trained on"
grep -q 'begun with layers 0-1,1z,2-3,3z' "$run.log" && ok "another plan: refused" || { say "$run"; bad "another plan"; }

# on disk: the same loss, proved, and the plan says what is new
"$SOLAR" upscale "$T/base-m/latest" "$T/deep" --insert-every 2 >"$T/log" 2>&1 || cat "$T/log"
score() { "$SOLAR" eval "$@" --tokens "$T/train.h5" --seq-len 40 --samples 5 --device cpu --threads 1 --json 2>"$T/log" | sed 's/.*"loss": \([0-9.]*\),.*/\1/'; }
a=$(score "$T/base-m/latest") b=$(score "$T/deep") c=$(score "$T/base-m/latest" --insert-every 2)
if [ -n "$a" ] && [ "$a" = "$b" ] && [ "$a" = "$c" ]; then ok "eval: base, written and deepened in memory: $a"; else bad "eval: $a, $b, $c"; fi
if "$SOLAR" verify "$T/base-m/latest" "$T/deep" >"$T/log" 2>&1 && grep -q 'zero where it should be' "$T/log"; then ok "verify: $(head -n 1 "$T/log")"; else cat "$T/log"; bad verify; fi
"$SOLAR" plan "$T/c.yaml" "${insert[@]}" >"$T/log" 2>&1
if grep -q 'layers.* 2-2 .*new: zero output' "$T/log"; then ok "the plan says what is new"; else cat "$T/log"; bad plan; fi
result
