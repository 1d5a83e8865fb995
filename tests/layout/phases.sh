#!/bin/bash
# A blend and a schedule that change on the way: every mesh trains like one rank, a resume gives the same bits, what lies
# ahead may be changed and what is past may not; a finished run warms up again.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
tokens "$T/other.h5" ../../README.md ../README.md
model m 3 2 true
config "$T/c.yaml" "$T/m"
sed -i "s|train: \[{files: $T/train.h5}\]|train: [{files: $T/train.h5, weight: 3}, {files: $T/other.h5}], blend: [{at: 60, weights: [1, 1]}, {at: 130, weights: [0, 1]}]|" "$T/c.yaml"
phases=(--set model.init=random --set schedule='{kind: cosine, warmup: 3, min_lr: 1.0e-4, phases: [{at: 10, lr: 2.0e-3, warmup: 4, decay: 3}]}')
rate() { sed -n "s/.*\"step\": *$2,.*\"lr\": *\([0-9.e-]*\),.*/\1/p" "$1/metrics.jsonl" | head -n 1; }
compare() { if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi; }
cut() { rm -rf "$1/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$1/latest"; }

for mesh in 1:1:1 4:2:1 4:1:2; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    train "$ranks" "$T/c.yaml" "$T/run-$pp-$tp" "${phases[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" || say "$T/run-$pp-$tp"
    compare "dp $((ranks / pp / tp)) x pp $pp x tp $tp" "$T/run-$pp-$tp" "$T/run-1-1" 1e-5
done
whole="$T/run-1-1"
if [ "$(rate "$whole" 10)" = 0.0001 ] && [ "$(rate "$whole" 14)" = 0.002 ] && [ "$(rate "$whole" 20)" = 0.0 ]; then ok "rates go up and down again"
else bad "rates: $(rate "$whole" 10) $(rate "$whole" 14) $(rate "$whole" 20)"; fi

# from step 10, sample 80: behind the first change, before the second
cp -a "$whole" "$T/parts" && cut "$T/parts"
train 1 "$T/c.yaml" "$T/parts" "${phases[@]}" || say "$T/parts"
compare "resumed between the changes" "$T/parts" "$whole" 0
cut "$T/parts"
train 1 "$T/c.yaml" "$T/parts" "${phases[@]}" --set data.blend.1.at=90 || say "$T/parts"
grep -q 'still to come is another' "$T/parts.log" && [ -e "$T/parts/checkpoints/step-00000020" ] && ok "what lies ahead may change" || { say "$T/parts"; bad "what lies ahead"; }
"$BUILD/tests/compare" "$T/parts" "$whole" 0 >/dev/null && bad "the new blend changed nothing"
cut "$T/parts"
train 1 "$T/c.yaml" "$T/parts" "${phases[@]}" --set data.blend.0.at=61
if [ $? -eq 3 ] && grep -q 'would change in the middle of the run' "$T/parts.log"; then ok "what is past may not"; else say "$T/parts"; bad "a past that changed"; fi
train 1 "$T/c.yaml" "$T/parts" "${phases[@]}" --set data.blend.0.at=61 --accept && ok "unless it is accepted" || { say "$T/parts"; bad "accepted"; }

# a finished run goes on
train 1 "$T/c.yaml" "$whole" "${phases[@]}" --set train.steps=30 \
    --set 'schedule.phases=[{at: 10, lr: 2.0e-3, warmup: 4, decay: 3}, {at: 20, kind: linear, lr: 1.0e-3, warmup: 2}]' || say "$whole"
if [ "$(rate "$whole" 21)" = 0.0005 ] && [ "$(rate "$whole" 22)" = 0.001 ] && [ "$(rate "$whole" 26)" = 0.0005 ]; then ok "a finished run warms up and decays again"
else bad "rates: $(rate "$whole" 21) $(rate "$whole" 22) $(rate "$whole" 26)"; fi

"$SOLAR" plan "$T/c.yaml" "${phases[@]}" >"$T/log" 2>&1
if grep -q 'rate .*steps 11-20: from 0.0001 to 0.002 over 4' "$T/log" && grep -q 'blend .*from sample 130, in step 17: train 0, other 1' "$T/log"; then ok "the plan tells both"; else cat "$T/log"; bad plan; fi
"$SOLAR" data --order "$T/c.yaml" --from 120 --count 20 >"$T/order"
if [ "$(sed -n '1,10p' "$T/order" | grep -c ' train ')" -eq 5 ] && [ "$(sed -n '11,20p' "$T/order" | grep -c ' other ')" -eq 10 ]; then ok "data --order shows the change"
else cat "$T/order"; bad order; fi

# The audit: what the run was trained on, over the changes of the blend; a record that was tampered with is found out.
audit() { "$SOLAR" data --audit "$1" >"$T/audit" 2>&1; }
cp -a "$whole" "$T/audited"
audit "$T/audited" && grep -q 'audited: 30 steps, samples 0 to 239, each' "$T/audit" && ok "the audit follows the blend" || { cat "$T/audit"; bad "audit"; }
refused() { # LABEL TEXT
    audit "$T/audited"
    [ $? -eq 5 ] && grep -q "$2" "$T/audit" && ok "audit: $1" || { cat "$T/audit"; bad "audit: $1"; }
}
sed -i '/^{"step":7,"loss"/d' "$T/audited/metrics.jsonl"
refused "a step without a record" 'step 8: steps before it left no record (samples 48 to 55)'
sed '/^{"step":9,"loss"/{p}' "$whole/metrics.jsonl" >"$T/audited/metrics.jsonl"
refused "a step that stands there twice" 'step 9: stands in the record a second time'
sed '/^{"step":9,"loss"/s/"samples":72/"samples":73/' "$whole/metrics.jsonl" >"$T/audited/metrics.jsonl"
refused "other samples" 'step 9: was trained on other samples'
cp "$whole/metrics.jsonl" "$T/audited/" && sed -i 's/at: 130/at: 138/' "$T/audited/config.yaml"
refused "another order" '14 findings in 30 steps'
result
