#!/bin/bash
# A real pretrained model, deepened in memory by several plans, gives the losses that an independent fp64
# implementation measured, on one rank and on meshes, and generates the same text on all of them. Needs ../shared/data
# beside the checkout, and is skipped without it.
# limit: 300
cd "$(dirname "$0")" && . ./lib.sh
DATA=../../../shared/data
if [ ! -d "$DATA/stories260k" ]; then
    echo "skipped: no $(realpath -m "$DATA")/stories260k"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

# near EXPECTED FOUND: within 1e-4
near() { awk -v a="$1" -v b="$2" 'BEGIN {d = a - b; if (d < 0) d = -d; exit !(d <= 1e-4)}'; }

# check LABEL LAYERS EXPECTED RANKS [OPTIONS]
check() {
    local label=$1 layers=$2 expected=$3 ranks=$4 said
    shift 4
    said=$(mpirun -np "$ranks" "$SOLAR" eval "$DATA/stories260k" --layers "$layers" --text "$DATA/tinystories.jsonl" \
        --docs 60 --max-tokens 256 --device cpu --threads 1 --json "$@" 2>"$T/log" </dev/null | sed -n 's/.*"loss": \([0-9.]*\).*"tokens": 15002.*/\1/p')
    if near "$expected" "${said:-nan}" && [ -n "$said" ]; then ok "$label: $said, expected $expected"
    else tail -n 3 "$T/log"; bad "$label: ${said:-no loss}, expected $expected"; fi
}

while read -r line; do
    layers=$(sed -n 's/.*plan \[\(.*\)\]:.*/\1/p' <<<"$line" | tr -d ' ')
    expected=$(sed -n 's/.*: \([0-9.]*\) nats.*/\1/p' <<<"$line")
    check "layers $layers, 1 rank" "$layers" "$expected" 1
    check "layers $layers, dp 1 x pp 2 x tp 2" "$layers" "$expected" 4 --pipeline 2 --tensor 2
done <"$DATA/expected-loss.txt"
for mesh in 4:1:1 4:4:1 4:1:4 8:2:2 3:3:1 8:1:8; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    check "layers 0-3,1-4, dp $((ranks / pp / tp)) x pp $pp x tp $tp" 0-3,1-4 1.592920 "$ranks" --pipeline "$pp" --tensor "$tp"
done

story() { "$@" "$SOLAR" generate "$DATA/stories260k" --prompt "Once upon a time" --tokens 50 --threads 1 "${opts[@]}" 2>"$T/log"; }
opts=(--m 1 --temperature 0)
one=$(story env)
opts=(--m 1 --temperature 0 --pipeline 2 --tensor 2)
four=$(story mpirun -np 4)
if [ ${#one} -gt 60 ] && [ "$one" = "$four" ]; then ok "generates the same text on 1 and on 4 ranks"
else bad "one rank: $one; four ranks: $four"; fi
result
