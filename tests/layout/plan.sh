#!/bin/bash
# solar plan: layouts that are wrong are refused with their map; mesh: auto chooses what the whole plan then confirms, and
# a run keeps it; the chart of a step, planned and measured.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 false
config "$T/c.yaml" "$T/m"
deep=(--set model.init=random --set model.dus.m=1) # 6 layers: donors 0 1 2, 1 2 3
plan() { "$SOLAR" plan "$T/c.yaml" "${deep[@]}" "$@" 2>&1; }

# refused LABEL PATTERN OPTIONS: exit status 3, and the pattern in what was said (lines joined)
refused() {
    local label=$1 pattern=$2 said status
    shift 2
    said=$(plan "$@") && status=0 || status=$?
    if [ $status = 3 ] && tr '\n' ' ' <<<"$said" | grep -Eq "$pattern"; then ok "$label is refused"
    else bad "$label: status $status, $said"; fi
}
refused "a dropped layer" 'add up to 5, the model has 6.*stage 0: layers 0-2 .donors 0-2. -- seam --.*stage 1: layers 3-4 .donors 1-2..*on no stage: layers 5-5' \
    --set mesh.pipeline=2 --set 'mesh.layout=[3, 2]'
refused "a doubled layer" 'add up to at least 7, the model has 6.*stage 1: layers 3-5 .donors 1-3. and 1 beyond the last, 5' \
    --set mesh.pipeline=2 --set 'mesh.layout=[3, 4]'
refused "a seam inside a stage" 'stage 0: layers 0-1 .donors 0-1.*stage 1: layers 2-2 .donors 2-2. . seam inside the stage . layers 3-5' \
    --set mesh.pipeline=2 --set 'mesh.layout=[2, 4]'
plan --set mesh.pipeline=2 --set 'mesh.layout=[2, 4]' --set mesh.seam_inside=true >"$T/out" && ok "and allowed when asked for" || bad "seam_inside: $(cat "$T/out")"
refused "an unknown machine" 'found no machine .b100., expected one of h100' --gpu b100
sed 's/^cpu:/tiny:/; s/memory: 4e9/memory: 1e3/' ../../slurm/machines.yaml >"$T/tiny.yaml"
refused "a machine too small for every mesh" 'none of [0-9]* meshes of 2 ranks fits' --set mesh=auto --ranks 2 --machine "$T/tiny.yaml" --gpu tiny

# The whole of SOLAR 10.7B on one GPU: fits as its config says, and not with fp32 moments
one() { "$SOLAR" plan ../../jobs/solar_one_gpu.yaml --set model.base=../../jobs/mistral-7b-v0.1 --ranks 1 --gpu h200 "$@" 2>&1; }
one >"$T/out" && grep -q '^fits ' "$T/out" && grep -q 'of 10731524096 parameters' "$T/out" && ok "one GPU: $(grep '^fits' "$T/out")" || bad "one GPU: $(cat "$T/out")"
one --set optimizer.moments=fp32 | grep -q 'this will not fit' && ok "and not with fp32 moments" || bad "fp32 moments on one GPU"

# What auto says of its choice is what the whole plan says of it.
plan --set mesh=auto --ranks 8 --set train.global_batch=64 >"$T/out" || bad "auto: $(cat "$T/out")"
chosen=$(sed -n 's/^ *1 data .*: \([0-9.]*\) s, .*/\1/p' "$T/out") whole=$(sed -n 's/^estimate.*a step of \([0-9.]*\) s.*/\1/p' "$T/out")
awk -v a="${chosen:-0}" -v b="${whole:-1}" 'BEGIN {exit !(a > 0 && a / b < 1.002 && a / b > 0.998)}' && ok "auto: $chosen s, the whole plan: $whole s" ||
    bad "auto: $chosen s, the whole plan: $whole s: $(cat "$T/out")"
slower=$(sed -n 's/^ *[2-9] data .*: \([0-9.]*\) s, .*; +\([0-9.]*\) %: [a-z].*/\1/p' "$T/out" | wc -l)
[ "$slower" -ge 2 ] && ok "auto: $slower others, with what they lose by" || bad "auto: no others: $(cat "$T/out")"

# JSON: every layer once, with donor and stage
plan --json --set mesh.pipeline=2 >"$T/json"
map=$(tr -d ' \n' <"$T/json" | grep -o '"layer":[0-9]*,"donor":[0-9]*,"stage":[0-9]*' | tr -dc '0-9\n' | tr '\n' ' ')
[ "$map" = "000 110 220 311 421 531 " ] && ok "JSON: the layer map" || bad "JSON: layers $map"

# A run: chosen, kept over a resume, charted.
auto=(--set mesh=auto --set log.timeline_every=4 --set train.steps=4 --set schedule='{kind: constant}' --set eval.every=0)
if train 4 "$T/c.yaml" "$T/run" "${deep[@]}" "${auto[@]}" --set mesh.tensor=2 --set mesh.pipeline=2; then ok "trains with mesh auto"
else say "$T/run"; bad "mesh auto does not train"; fi
grep -A4 '^mesh:' "$T/run/config.yaml" | grep -q 'auto: false' && grep -q 'tensor: 2' "$T/run/config.yaml" && ok "the choice is in config.yaml" ||
    bad "config.yaml: $(grep -A8 '^mesh:' "$T/run/config.yaml")"
if train 4 "$T/c.yaml" "$T/run" "${deep[@]}" "${auto[@]}" --set train.steps=6 && grep -q 'pipeline 2 .*x tensor 2.*as the run has had' "$T/run.log"; then
    ok "a resume keeps it"
else say "$T/run"; bad "a resume does not keep it: $(grep auto "$T/run.log")"; fi
rows=$(grep -Ec '^stage +[01] [|].*[|]$' "$T/run/timeline.txt") shares=$(grep -c '^idle share [0-9.]* %' "$T/run/timeline.txt")
[ "$rows" -ge 4 ] && [ "$shares" = 2 ] && ok "the chart, measured and planned" || bad "chart: $rows rows, $shares shares: $(cat "$T/run/timeline.txt")"
result
