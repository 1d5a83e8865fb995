#!/bin/bash
# The forms in which gradients and moments are kept: a resumed run goes on with the same bits, sharded or not; a run
# may change the form when it resumes, and says so; losses stay near those of fp32 moments. One form by default; FULL=1
# takes all of them, on more meshes, and longer runs.
# limit: 900
cd "$(dirname "$0")" && . ./lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 4 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
deep=(--set model.dus.m=1)
compare() { # LABEL RUN_A RUN_B TOLERANCE
    if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi
}
cut() { rm -rf "$1/checkpoints/step-00000020" && ln -sfn checkpoints/step-00000010 "$1/latest"; }

# form RANKS PP TP SETTING...: 20 steps, 10 and 10 more, and the same without shards
form() {
    local ranks=$1 pp=$2 tp=$3 label whole="$T/whole" run="$T/run"
    shift 3
    rm -rf "$whole" "$run"
    label="dp $((ranks / pp / tp)) x pp $pp x tp $tp, $*"
    # shellcheck disable=SC2046
    set -- "${deep[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" $(printf -- '--set %s ' "$@")
    train "$ranks" "$T/c.yaml" "$whole" "$@" || { say "$whole"; bad "$label: does not train"; return; }
    cp -a "$whole" "$run" && cut "$run"
    train "$ranks" "$T/c.yaml" "$run" "$@" || say "$run"
    grep -q 'resuming from .*step 10' "$run.log" || bad "$label: no resume from step 10"
    compare "resume, $label" "$run" "$whole" 0
    [ $((ranks / pp / tp)) -gt 1 ] || return
    rm -rf "$run"
    train "$ranks" "$T/c.yaml" "$run" "$@" --set optimizer.shard=false || say "$run"
    compare "not sharded, $label" "$run" "$whole" 0
}

if [ "${FULL:-0}" = 1 ]; then
    for mesh in 1:1:1 2:1:1 3:1:1 4:2:2 8:2:2 4:1:2; do
        for moments in fp32 bf16 int8; do
            for precision in "train.precision=fp32" "train.precision=bf16" "train.precision=bf16 train.grad_accum=bf16"; do
                IFS=: read -r ranks pp tp <<<"$mesh"
                batch=$((ranks == 3 ? 12 : 8))
                # shellcheck disable=SC2086
                form "$ranks" "$pp" "$tp" $precision optimizer.moments=$moments train.global_batch=$batch
            done
        done
    done
fi
form 3 1 1 train.precision=bf16 train.grad_accum=bf16 optimizer.moments=int8 train.global_batch=12

# Another form, on another mesh, from the same checkpoint.
for moments in fp32 bf16; do
    run="$T/other-$moments"
    cp -a "$T/whole" "$run" && cut "$run"
    train 2 "$T/c.yaml" "$run" "${deep[@]}" --set mesh.tensor=2 --set train.precision=bf16 --set optimizer.moments="$moments" --set train.global_batch=12 || say "$run"
    grep -q "config: optimizer.moments was int8, is $moments" "$run.log" && grep -q 'resuming from .*step 10' "$run.log" &&
        ok "int8 moments, resumed with $moments on another mesh" || { say "$run"; bad "int8 to $moments"; }
done

train 1 "$T/c.yaml" "$T/offload" "${deep[@]}" --set optimizer.offload=true
status=$?
if [ $status = 3 ] && grep -q 'device cpu computes in the host.s memory' "$T/offload.log"; then ok "optimizer.offload is refused on the CPU"
else say "$T/offload"; bad "optimizer.offload on the CPU: exit status $status"; fi

# loss FORM...: the mean of the last ten losses
loss() { grep -o '"loss": *[0-9.]*' "$1/metrics.jsonl" | tail -n 10 | awk -F: '{s += $2} END {print s / NR}'; }
steps=60
[ "${FULL:-0}" = 1 ] && steps=400
long=(--set train.steps="$steps" --set schedule='{kind: constant}' --set checkpoint.every=0 --set eval.every=0 --set log.every=1)
for settings in optimizer.moments=fp32 optimizer.moments=bf16 optimizer.moments=int8; do
    run="$T/long-$settings"
    train 1 "$T/c.yaml" "$run" "${deep[@]}" "${long[@]}" --set train.precision=bf16 --set "$settings" || say "$run"
    now=$(loss "$run")
    [ $settings = optimizer.moments=fp32 ] && first=$now
    if awk -v a="$now" -v b="$first" 'BEGIN {exit !(a > 0 && a <= b * 1.02 && a >= b * 0.98)}'; then
        ok "$steps steps, $settings: loss $now, of fp32 $first"
    else
        bad "$steps steps, $settings: loss $now, of fp32 $first"
    fi
done
result
