#!/bin/bash
# The whole program on an emulated GPU (emulate.cpp), which all ranks share: meshes of 1, 2 and 4 ranks train like one
# rank on the CPU; a run that is resumed equals one that was not, bit for bit; what the CPU saved goes on on the GPU, and
# back. The kernels have the sanitizers in them. FULL=1: more meshes, and bf16.
# limit: 600
cd "$(dirname "$0")/../layout" && . ./lib.sh

mkdir -p "$BUILD/emulation"
log=$BUILD/emulation/program.log
if ! make -C ../.. -f tests/emulation/emulation.mk BUILD="$BUILD" program >"$log" 2>&1; then
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
on_gpu() { SOLAR=$BUILD/emulation/solar on_cpu "$@" --set train.device=cuda; }
compare() { # LABEL RUN_A RUN_B TOLERANCE
    if said=$("$BUILD/tests/compare" "$2" "$3" "$4"); then ok "$1: $said"; else bad "$1: $said"; fi
}
# half FROM TO: a copy of a run as it was after its second step
half() { cp -a "$1" "$2" && rm -rf "$2/checkpoints/step-00000004" && ln -sfn checkpoints/step-00000002 "$2/latest"; }

meshes=(1:1:1 4:2:2) precisions=(fp32)
[ -z "${FULL:-}" ] || meshes+=(2:1:1 2:2:1 2:1:2 4:1:2 4:1:1) precisions+=(bf16)
on_cpu 1 "$T/cpu"
for mesh in "${meshes[@]}"; do
    IFS=: read -r ranks pp tp <<<"$mesh"
    label="dp $((ranks / pp / tp)) x pp $pp x tp $tp on one GPU"
    set -- --set mesh.pipeline="$pp" --set mesh.tensor="$tp"
    for precision in "${precisions[@]}"; do
        whole="$T/gpu-$ranks-$pp-$tp-$precision"
        on_gpu "$ranks" "$whole" "$@" --set train.precision=$precision
        [ $precision = bf16 ] || compare "$label" "$whole" "$T/cpu" 1e-5
        half "$whole" "$whole-2" && on_gpu "$ranks" "$whole-2" "$@" --set train.precision=$precision
        grep -q 'resuming from .*step 2' "$whole-2.log" || bad "$label: no resume from step 2"
        compare "$label, resumed, $precision" "$whole-2" "$whole" 0
    done
done
half "$T/cpu" "$T/to-gpu" && on_gpu 2 "$T/to-gpu"
compare "from the CPU to two ranks on the GPU" "$T/to-gpu" "$T/cpu" 1e-5
half "$T/gpu-4-2-2-fp32" "$T/to-cpu" && on_cpu 1 "$T/to-cpu"
compare "from four ranks on the GPU to the CPU" "$T/to-cpu" "$T/cpu" 1e-5
result
