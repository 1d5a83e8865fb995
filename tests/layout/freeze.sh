#!/bin/bash
# Learning-rate multipliers by group: what is frozen keeps its bytes, what is not moves, on one rank and on a mesh alike;
# `until` ends the freeze. The manifests' checksums of the tensors tell.
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
all=$(for l in 0 1 2 3 4 5; do echo "model.layers.$l."; done)

check() { # LABEL EXPECTED-PATTERN UNEXPECTED-PATTERN [--set ...]: tensors that must move, and that must not
    local label=$1 must=$2 mustnot=$3 mesh run
    shift 3
    for mesh in 1:1:1 4:2:2; do
        IFS=: read -r ranks pp tp <<<"$mesh"
        run="$T/run-$ranks"
        rm -rf "$run"
        train "$ranks" "$T/c.yaml" "$run" --set model.dus.m=1 --set mesh.pipeline="$pp" --set mesh.tensor="$tp" "$@" || say "$run"
        moved "$run" >"$T/moved"
        if grep -Eq "$must" "$T/moved" && ! grep -Eq "$mustnot" "$T/moved"; then ok "$label, pp $pp x tp $tp: $(wc -l <"$T/moved") tensors moved"
        else bad "$label, pp $pp x tp $tp: moved $(tr '\n' ' ' <"$T/moved")"; fi
    done
    if said=$("$BUILD/tests/compare" "$T/run-4" "$T/run-1" 1e-5); then ok "$label: both alike"; else bad "$label: $said"; fi
}

check "only the seam" 'layers\.[23]\.' 'layers\.[0145]\.|embed|model\.norm' --set lr_scale='{embedding: 0, head: 0, half_a: 0, half_b: 0, seam_width: 1}'
check "half a frozen" 'layers\.5\.' 'layers\.[012]\.' --set lr_scale.half_a=0
check "embedding frozen" 'layers\.0\.' 'embed' --set lr_scale.embedding=0
check "thawed at step 10" 'layers\.0\.' 'none' --set lr_scale='{half_a: 0, until: 10}'
for l in $all; do grep -q "$l" "$T/moved" || bad "$l did not move after the thaw"; done
result
