#!/bin/bash
# A generated matrix of meshes and options against one rank, over four steps: virtual stages, sharded optimizer, sequence
# parallelism, recomputation, micro-batches, precision, tied and separate heads. On every mesh a plain run equals one rank
# to rounding; what the numbers promise to be the same bits is compared byte by byte with that plain run.
# A few meshes by default; FULL=1 takes all (some minutes).
# limit: 1500
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
short=(--set train.steps=4 --set schedule='{kind: constant}' --set checkpoint.every=0 --set eval.every=0 --set model.dus.m=2
       --set train.global_batch=12)

# run NAME RANKS PP TP OPTION...: trains $kind; what fails is said once
run() {
    local name=$1 ranks=$2 pp=$3 tp=$4
    shift 4
    rm -rf "${T:?}/$name"
    train "$ranks" "$T/$kind.yaml" "$T/$name" "${short[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" "$@" && return
    say "$T/$name"
    bad "$kind $ranks ranks, pp $pp, tp $tp, $*: does not train"
    return 1
}

# same NAME REFERENCE TOLERANCE LABEL
same() {
    local said
    if said=$("$BUILD/tests/compare" "$T/$1" "$T/$2" "$3"); then ok "$4"; else bad "$4: $said"; fi
}

# mesh RANKS PP TP REFERENCE TOLERANCE COMMON...: a plain run, then each option by itself and some together
mesh() {
    local ranks=$1 pp=$2 tp=$3 reference=$4 tolerance=$5 label option
    shift 5
    run plain "$ranks" "$pp" "$tp" --set optimizer.shard=false "$@" || return
    label="$kind $ranks ranks, pp $pp, tp $tp $*"
    same plain "$reference" "$tolerance" "$label"
    local exact=(train.recompute=full) close=()
    [ $((ranks / pp / tp)) -gt 1 ] && exact+=(optimizer.shard=true "optimizer.shard=true train.recompute=selective train.recompute_every=3")
    [ "$pp" -gt 1 ] && close+=(mesh.interleave=2 "mesh.interleave=3 optimizer.shard=true train.recompute=selective")
    [ "$tp" -gt 1 ] && close+=(mesh.sequence_parallel=true "mesh.sequence_parallel=true optimizer.shard=true train.recompute=full")
    [ "$pp" -gt 1 ] && [ "$tp" -gt 1 ] && close+=("mesh.interleave=2 mesh.sequence_parallel=true optimizer.shard=true mesh.order=pdt")
    # Rounded gradients: near the plain run, and the same bits whether the optimizer is sharded or not.
    if [ $((ranks / pp / tp)) -gt 1 ] && run rounded "$ranks" "$pp" "$tp" --set optimizer.shard=false --set train.grad_reduce=bf16 "$@"; then
        same rounded plain 0.1 "$label, gradients sent in bf16"
        run other "$ranks" "$pp" "$tp" --set optimizer.shard=true --set train.grad_reduce=bf16 "$@" && same other rounded 0 "$label, the same and sharded: the same bits"
    fi
    for option in "${exact[@]}"; do
        # shellcheck disable=SC2086,SC2046 # several options
        run other "$ranks" "$pp" "$tp" --set optimizer.shard=false "$@" $(printf -- '--set %s ' $option) && same other plain 0 "$label, $option: the same bits"
    done
    for option in "${close[@]}"; do
        # shellcheck disable=SC2086,SC2046
        run other "$ranks" "$pp" "$tp" --set optimizer.shard=false "$@" $(printf -- '--set %s ' $option) && same other plain "$tolerance" "$label, $option"
    done
}

meshes=(4:2:2 2:1:1)
kinds=(tied:2:true)
if [ "${FULL:-0}" = 1 ]; then
    meshes=(1:1:1 2:1:1 3:1:1 2:2:1 4:2:1 3:3:1 2:1:2 4:1:2 8:1:8 4:2:2 8:2:2 6:3:2)
    kinds=(tied:2:true separate:4:false)
fi
for k in "${kinds[@]}"; do
    IFS=: read -r kind kv tied <<<"$k"
    model "$kind" 8 "$kv" "$tied"
    config "$T/$kind.yaml" "$T/$kind"
    base "$kind" "$T/$kind.yaml"
    config "$T/$kind.yaml" "$T/base-$kind/latest"
    run one 1 1 1 || break
    run half 1 1 1 --set train.precision=bf16 || break
    for m in "${meshes[@]}"; do
        IFS=: read -r ranks pp tp <<<"$m"
        mesh "$ranks" "$pp" "$tp" one 1e-5
        [ "${FULL:-0}" = 1 ] || continue
        mesh "$ranks" "$pp" "$tp" half 0.1 --set train.precision=bf16
        [ $((12 % (2 * ranks / pp / tp))) -eq 0 ] && mesh "$ranks" "$pp" "$tp" one 1e-5 --set train.micro_batch=2
    done
done
result
