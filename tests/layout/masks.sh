#!/bin/bash
# Documents masked within a sequence: every mesh trains like one rank, though the number of predicted tokens differs from
# sample to sample; validation and `solar eval` alike; a resume gives the same bits; and it is not the unmasked training.
cd "$(dirname "$0")" && . ./lib.sh

# a document of every line that says something
grep '[a-z]' ../../LICENSE | sed 's/^ *//; s/["\\]//g; s/.*/{"text": "&"}/' >"$T/lines.jsonl"
"$SOLAR" tokenize "$T/lines.jsonl" --tokenizer bytes --out "$T/train.h5" >/dev/null 2>"$T/log" || { cat "$T/log"; exit 1; }
model m 4 2 true
config "$T/c.yaml" "$T/m"
masked=(--set model.init=random --set data.mask_documents=true --set data.seq_len=80)
compare() { if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi; }
valid() { sed -n 's/.*"valid_loss": *\([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
near() { awk -v a="$1" -v b="$2" 'BEGIN {d = a - b; exit !(a > 0 && d < 1e-5 && d > -1e-5)}'; }

for mesh in 1:1:1 4:2:2 4:1:4 4:2:1 3:3:1 2:1:1; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    extra=()
    [ "$mesh" = 2:1:1 ] && extra=(--set train.micro_batch=2)
    [ "$mesh" = 4:2:1 ] && extra=(--set mesh.interleave=2)
    [ "$mesh" = 4:1:4 ] && extra=(--set mesh.sequence_parallel=true --set train.recompute=full)
    run="$T/run-$ranks-$pp-$tp" label="dp $((ranks / pp / tp)) x pp $pp x tp $tp ${extra[*]}"
    train "$ranks" "$T/c.yaml" "$run" "${masked[@]}" "${extra[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" || say "$run"
    compare "$label" "$run" "$T/run-1-1-1" 1e-5
    if near "$(valid "$run")" "$(valid "$T/run-1-1-1")"; then ok "$label: validation $(valid "$run")"; else bad "$label: validation $(valid "$run")"; fi
done

one="$T/run-1-1-1"
score() { mpirun -np "$1" "$SOLAR" eval "$one/latest" --tokens "$T/train.h5" --seq-len 80 --samples 6 --device cpu --threads 1 --json "${@:2}" 2>"$T/log" </dev/null | sed 's/.*"loss": \([0-9.]*\), .*"tokens": \([0-9]*\),.*/\1 \2/'; }
read -r loss tokens <<<"$(score 1 --mask-documents)"
read -r loss2 tokens2 <<<"$(score 3 --mask-documents --pipeline 3)"
read -r plain all <<<"$(score 1)"
if near "$loss" "$(valid "$one")" && near "$loss2" "$loss" && [ "$tokens" -lt 480 ] && [ "$tokens" = "$tokens2" ]; then ok "eval: $loss over $tokens tokens"
else cat "$T/log"; bad "eval: $loss over $tokens, $loss2 over $tokens2, validation $(valid "$one")"; fi
if [ "$all" = 480 ] && ! near "$plain" "$loss"; then ok "without masks: $plain over $all tokens"; else bad "without masks: $plain over $all"; fi

train 1 "$T/c.yaml" "$T/plain" "${masked[@]}" --set data.mask_documents=false || say "$T/plain"
"$BUILD/tests/compare" "$T/plain" "$one" 1e-3 >/dev/null && bad "masks change nothing" || ok "masks change the training"

run="$T/parts"
cp -a "$T/run-4-2-2" "$run" && rm -rf "$run/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$run/latest"
train 4 "$T/c.yaml" "$run" "${masked[@]}" --set mesh.pipeline=2 --set mesh.tensor=2 || say "$run"
compare "resumed" "$run" "$T/run-4-2-2" 0
result
