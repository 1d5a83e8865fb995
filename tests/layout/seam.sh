#!/bin/bash
# The report of layers: every mesh gives that of one rank; a frozen layer has not moved from its donor; gradients of the
# layers are no more than the whole; the seam stands where it is.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
report() { # RANKS PP TP [--set ...]: seam.txt in $T/RANKS.txt
    local run="$T/run-$1-$2-$3"
    train "$1" "$T/c.yaml" "$run" --set model.dus.m=1 --set log.seam_every=5 --set lr_scale.half_a=0 --set mesh.pipeline="$2" \
        --set mesh.tensor="$3" --set train.micro_batch=2 || say "$run"
    cp "$run/seam.txt" "$T/$1-$2-$3.txt"
}
# alike A B: numbers within 1e-2 (three digits are printed), same words
alike() {
    paste -d' ' "$1" "$2" | awk '
        NF % 2 {bad = 1}
        {for (i = 1; i <= NF / 2; i++) {a = $i; b = $(i + NF / 2); d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b
         if (a != b && !(d <= 1e-2 * m)) bad = 1}}
        END {exit bad}'
}

report 1 1 1
one="$T/1-1-1.txt"
if [ "$(wc -l <"$one")" -eq 9 ] && [ "$(sed -n 6p "$one" | cut -c1-12)" = "----- seam -" ]; then ok "six layers, the seam behind the third"
else cat "$one"; bad "the table"; fi
if awk '$1 ~ /^[0-9]+$/ {frozen = $1 < 3; if (frozen != ($4 == 0)) bad = 1; if (!($6 > 0 && $6 <= 1) || !($3 > 0)) bad = 1; n++} END {exit bad || n != 6}' "$one"; then
    ok "frozen layers have not moved, the others have"
else cat "$one"; bad "distances"; fi
total=$(sed -n 's/.*"step":20,"loss".*"grad_norm":\([0-9.e-]*\).*/\1/p' "$T/run-1-1-1/metrics.jsonl")
if awk -v t="$total" '$1 ~ /^[0-9]+$/ && $1 > 2 {s += $3 * $3} END {exit !(t > 0 && s <= t * t * 1.01 && s > 0)}' "$one"; then
    ok "gradients of the layers are a part of $total"
else cat "$one"; bad "gradient norms against $total"; fi
for mesh in 4:2:2 2:1:2 3:3:1 4:1:4; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    report "$ranks" "$pp" "$tp"
    if alike "$T/$ranks-$pp-$tp.txt" "$one"; then ok "dp $((ranks / pp / tp)) x pp $pp x tp $tp: the same report"
    else cat "$T/$ranks-$pp-$tp.txt" "$one"; bad "dp $((ranks / pp / tp)) x pp $pp x tp $tp"; fi
done
result
