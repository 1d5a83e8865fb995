#!/bin/bash
# Recomputing what the backward pass needs changes the memory, and not one bit of the numbers: fp32 and bf16, one rank
# and a mesh.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
activations() { sed -n 's/^memory.*activations \([^,]*\),.*/\1/p' "$1.log" | head -n 1; }

for precision in fp32 bf16; do
    for mesh in 1:1:1 4:2:2; do
        IFS=: read -r ranks pp tp <<<"$mesh"
        common=(--set model.dus.m=1 --set mesh.pipeline="$pp" --set mesh.tensor="$tp" --set train.precision="$precision" --set train.steps=8)
        kept="$T/kept-$precision-$ranks"
        train "$ranks" "$T/c.yaml" "$kept" "${common[@]}" || { say "$kept"; bad "nothing recomputed"; }
        for kind in selective:1 full:1 full:2 selective:3; do
            IFS=: read -r recompute every <<<"$kind"
            run="$T/$recompute-$every-$precision-$ranks"
            label="$recompute, every $every, $precision, pp $pp x tp $tp"
            train "$ranks" "$T/c.yaml" "$run" "${common[@]}" --set train.recompute="$recompute" --set train.recompute_every="$every" ||
                say "$run"
            less=$(activations "$run") more=$(activations "$kept")
            if said=$("$BUILD/tests/compare" "$run" "$kept" 0) && [ "$less" != "$more" ]; then ok "$label: $less instead of $more"
            else bad "$label: $said, $less of $more"; fi
        done
    done
done
result
