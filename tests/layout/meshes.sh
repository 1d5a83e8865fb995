#!/bin/bash
# Every mesh trains like one rank: losses, gradient norms, weights and optimizer state over 20 steps, fp32, from a
# base model that is deepened while each rank loads its own slices. Tied and separate heads; key/value heads fewer
# than tensor ranks; uneven stages; micro-batches of two.
# limit: 400
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
for kind in tied:4:true separate:2:false; do
    IFS=: read -r name kv tied <<<"$kind"
    model "$name" 4 "$kv" "$tied"
    config "$T/$name.yaml" "$T/$name"
    base "$name" "$T/$name.yaml"
    config "$T/$name.yaml" "$T/base-$name/latest"
    deep=(--set model.dus.m=1)
    train 1 "$T/$name.yaml" "$T/$name-one" "${deep[@]}" || { say "$T/$name-one"; bad "one rank, $name"; }
    for mesh in 4:1:1 4:4:1 4:1:4 4:2:2 4:2:1 4:1:2 8:2:2 3:3:1 2:2:1 2:1:2 8:1:8 1:1:1; do
        IFS=: read -r ranks pp tp <<<"$mesh"
        run="$T/$name-$ranks-$pp-$tp"
        extra=()
        [ "$mesh" = 2:2:1 ] || [ "$mesh" = 1:1:1 ] && extra=(--set train.micro_batch=2)
        label="$name head: dp $((ranks / pp / tp)) x pp $pp x tp $tp ${extra[*]}"
        if ! train "$ranks" "$T/$name.yaml" "$run" "${deep[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" "${extra[@]}"; then
            say "$run"
            bad "$label: does not train"
        elif said=$("$BUILD/tests/compare" "$run" "$T/$name-one" 1e-5); then ok "$label: $said"
        else bad "$label: $said"; fi
        rm -rf "$run"
    done
done
result
