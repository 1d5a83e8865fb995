#!/bin/bash
# The whole program on emulated GPUs (emulate.cpp). Ranks that share one: meshes of 1, 2 and 4 ranks train like one rank
# on the CPU; a run that is resumed equals one that was not, bit for bit; what the CPU saved goes on on the GPU, and back.
# Ranks with a GPU each, over links (nccl/nccl.cpp): the bits of those that share one. What the start refuses. The kernels
# have the sanitizers in them. FULL=1: more meshes, and bf16.
# GPU_SOLAR=PROGRAM, GPUS=N: with this program on the N GPUs that there are; what needs more than N is skipped.
# limit: 600
cd "$(dirname "$0")/../layout" && . ./lib.sh

mkdir -p "$BUILD/emulation"
log=$BUILD/emulation/program.log
emulated=$BUILD/emulation/solar
near=1e-5
if [ -n "${GPU_SOLAR:-}" ]; then
    near=1e-4 # its products add in another order
    emulated=$GPU_SOLAR
elif ! make -C ../.. -f tests/emulation/emulation.mk BUILD="$BUILD" program >"$log" 2>&1; then
    cat "$log"
    bad "the program does not build for the emulated GPU"
    result
    exit 1
fi
# What leaks is MPI's.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0

tokens "$T/train.h5" ../../LICENSE
model m 2 2 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
small=(--set model.dus.m=1 --set train.global_batch=4 --set data.seq_len=19 --set data.valid='[]' --set eval.every=0
    --set train.steps=4 --set schedule='{kind: wsd, warmup: 1, decay: 1}' --set checkpoint.every=2)
on_cpu() { # RANKS RUN [--set ...]
    train "$1" "$T/c.yaml" "$2" "${small[@]}" "${@:3}" || { say "$2"; bad "$2 does not train"; }
}
on_gpu() { SOLAR=$emulated on_cpu "$@" --set train.device=cuda; }
compare() { # LABEL RUN_A RUN_B TOLERANCE
    if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi
}
# half FROM TO: a copy of a run as it was after its second step
half() { cp -a "$1" "$2" && rm -rf "$2/checkpoints/step-00000004" && ln -sfn checkpoints/step-00000002 "$2/latest"; }

meshes=(4:2:2 2:1:1) precisions=(fp32)
[ -z "${FULL:-}" ] || meshes+=(1:1:1 2:2:1 2:1:2 4:1:2 4:1:1) precisions+=(bf16)
on_cpu 1 "$T/cpu"
for mesh in "${meshes[@]}"; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    label="dp $((ranks / pp / tp)) x pp $pp x tp $tp on one GPU"
    set -- --set mesh.pipeline="$pp" --set mesh.tensor="$tp"
    for precision in "${precisions[@]}"; do
        whole="$T/gpu-$ranks-$pp-$tp-$precision"
        on_gpu "$ranks" "$whole" "$@" --set train.precision=$precision --set mesh.transport=mpi
        [ $precision = bf16 ] || compare "$label" "$whole" "$T/cpu" $near
        [ -z "${FULL:-}" ] && [ "$mesh" = 4:2:2 ] && continue
        half "$whole" "$whole-2" && on_gpu "$ranks" "$whole-2" "$@" --set train.precision=$precision --set mesh.transport=mpi
        grep -q 'resuming from .*step 2' "$whole-2.log" || bad "$label: no resume from step 2"
        compare "$label, resumed, $precision" "$whole-2" "$whole" 0
    done
done

# With a GPU each, memory travels over links; sums have the same order, so nothing changes.
linked() { # LABEL RANKS RUN SAME_RUN [--set ...]
    [ "${GPUS:-8}" -ge "$2" ] || { skipped=$((skipped + 1)); echo "skip $1, over links: $2 ranks, $GPUS GPU(s)"; return; }
    EMULATED_GPUS=4 on_gpu "$2" "$3" "${@:5}"
    grep -q 'transport nccl' "$3.log" || bad "$1: not over links"
    compare "$1, over links as through the host" "$3" "$4" 0
}
for mesh in "${meshes[@]}"; do
    [ "$mesh" != 1:1:1 ] || continue
    IFS=: read -r ranks pp tp <<<"$mesh"
    for precision in "${precisions[@]}"; do
        name="$ranks-$pp-$tp-$precision"
        linked "dp $((ranks / pp / tp)) x pp $pp x tp $tp, $precision" "$ranks" "$T/links-$name" "$T/gpu-$name" \
            --set mesh.pipeline="$pp" --set mesh.tensor="$tp" --set train.precision="$precision"
    done
done

if [ -n "${FULL:-}" ]; then
    model m4 4 2 false
    config "$T/random4.yaml" "$T/m4"
    base m4 "$T/random4.yaml"
    config "$T/c4.yaml" "$T/base-m4/latest"
fi
# both LABEL RANKS CONFIG [--set ...]: through the host and over links
both() {
    local label=$1 ranks=$2 model=$3
    shift 3
    cp "$T/$model.yaml" "$T/c.yaml"
    [ "${GPUS:-8}" -ge "$ranks" ] || { skipped=$((skipped + 1)); echo "skip $label: $ranks ranks, $GPUS GPU(s)"; return; }
    on_gpu "$ranks" "$T/host" --set mesh.transport=mpi "$@"
    linked "$label" "$ranks" "$T/links" "$T/host" "$@"
    rm -rf "$T/host" "$T/links"
}
if [ -n "${FULL:-}" ]; then
    cp "$T/c.yaml" "$T/c2.yaml"
    bf16=(--set train.precision=bf16 --set train.grad_reduce=bf16)
    both "dp 2, gradients travel as bf16" 2 c2 --set train.grad_reduce=bf16
    both "dp 2, not sharded, bf16" 2 c2 --set optimizer.shard=false "${bf16[@]}"
    both "dp 3" 3 c2 --set train.global_batch=3
    both "dp 2 x pp 2" 4 c2 --set mesh.pipeline=2
    both "tp 2, sequence parallel" 2 c2 --set mesh.tensor=2 --set mesh.sequence_parallel=true
    both "tp 4 with 2 key/value heads, sequence parallel, bf16" 4 c2 --set mesh.tensor=4 --set mesh.sequence_parallel=true "${bf16[@]}"
    both "pp 2, interleaved" 2 c4 --set mesh.pipeline=2 --set mesh.interleave=2
    both "pp 3, interleaved" 3 c4 --set mesh.pipeline=3 --set mesh.interleave=2
    cp "$T/c2.yaml" "$T/c.yaml"
fi

# Moments in host memory: the same bits as on the GPU, when resumed too.
form=(--set train.precision=bf16 --set optimizer.moments=int8 --set train.grad_accum=bf16)
on_gpu 2 "$T/here" "${form[@]}"
on_gpu 2 "$T/there" "${form[@]}" --set optimizer.offload=true
compare "8-bit moments, offloaded" "$T/there" "$T/here" 0
half "$T/there" "$T/there-2" && on_gpu 2 "$T/there-2" "${form[@]}" --set optimizer.offload=true
compare "8-bit moments, offloaded, resumed" "$T/there-2" "$T/here" 0
half "$T/cpu" "$T/to-gpu" && on_gpu 2 "$T/to-gpu"
compare "from the CPU to two ranks on the GPU" "$T/to-gpu" "$T/cpu" $near
half "$T/gpu-4-2-2-fp32" "$T/to-cpu" && on_cpu 1 "$T/to-cpu"
compare "from four ranks on the GPU to the CPU" "$T/to-cpu" "$T/cpu" $near

[ -z "${GPU_SOLAR:-}" ] || { result; exit; } # what follows needs GPUs that can be as it wants them

tiny="layers=2 hidden=32 ffn=48 heads=4 kv=2 vocab=100 seq=8 micro=2 seconds=0"
# shellcheck disable=SC2086 # a list of words
if said=$("$BUILD/emulation/bench_gpu_train" $tiny 2>&1) && grep -q 'tokens/s, .* TFLOP/s .* GiB, queued in' <<<"$said"; then
    ok "the measurement of a step runs"
else bad "the measurement of a step: $said"; fi

if [ -n "${FULL:-}" ]; then # logits and every gradient as Transformers has them
    said=$(make -C ../.. -s -f tests/emulation/emulation.mk BUILD="$BUILD" oracle 2>&1 &&
        cd ../.. && SOLAR_TEST_DEVICE=cuda "$BUILD/emulation/test_oracle" 2>&1) && ok "the model on the GPU as Transformers has it" ||
        bad "the model on the GPU: $said"
fi

# refused LABEL STATUS WORDS RANKS COMMAND...: the start says no
refused() {
    local label=$1 want=$2 words=$3 ranks=$4 status=0
    shift 4
    env "$@" mpirun -np "$ranks" "$emulated" train "$T/c.yaml" --set run.dir="$T/refused" "${small[@]}" \
        --set train.device=cuda ${transport:+--set mesh.transport=$transport} >"$T/refused.log" 2>&1 || status=$?
    if [ $status -eq "$want" ] && grep -q "$words" "$T/refused.log"; then ok "$label"
    else say "$T/refused"; bad "$label: exit status $status, expected $want and '$words'"; fi
}
transport='' refused "GPUs of different kinds are refused" 6 'GPUs of different kinds: rank 1' 2 EMULATED_GPUS=2 EMULATED_ODD=1
transport=nccl refused "links need a GPU a rank" 3 'rank 1 shares' 2 EMULATED_GPUS=1
transport='' refused "a GPU with ECC errors is refused" 6 'rank 1 .* 2 uncorrected ECC errors' 2 EMULATED_GPUS=2 EMULATED_ECC=2 \
    LD_LIBRARY_PATH="$BUILD/emulation"
transport='' refused "a GPU that waits for a reset is refused" 6 'rank 1 .*wait to be remapped' 2 EMULATED_GPUS=2 \
    EMULATED_PENDING=1 LD_LIBRARY_PATH="$BUILD/emulation"
transport='' refused "no GPU, but one was asked for" 6 'no CUDA driver or GPU' 1 EMULATED_GPUS=0

# A rank that stands still: the other's wait for its GPU, or in MPI, ends with who is missing.
run="$T/stuck"
SOLAR=$emulated EMULATED_GPUS=2 train 2 "$T/c.yaml" "$run" "${small[@]}" --set train.device=cuda \
    --set train.steps=100000 --set schedule='{kind: constant}' --set timeout.step=6 &
pid=$!
for _ in $(seq 200); do [ "$(grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null)" -gt 1 ] 2>/dev/null && break; sleep 0.1; done
one=$(pgrep -n -f "^$emulated train .*run.dir=$run ")
[ -z "$one" ] || kill -STOP "$one"
status=0
wait $pid || status=$?
[ -z "$one" ] || kill -KILL "$one" 2>/dev/null
if [ $status -eq 8 ] && grep -q 'no answer from rank' "$run.log"; then ok "a rank that stands still is named, exit status 8"
else say "$run"; bad "a rank that stands still: exit status $status"; fi
result
