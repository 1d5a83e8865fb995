#!/bin/bash
# The speed of this program on a GPU, and of PyTorch on the same in the same run: the table that README.md of kernels/cuda
# explains, with hardware, driver and commit at its head.
# usage: tests/gpu/bench.sh [BUILD]     in a checkout that is built with CUDA, or in an unpacked bundle (bundle.sh)
# In the environment: SECONDS_EACH=20; PYTHON=python3, one that has torch and transformers (without, the peer is left out
# and it says so); LAYERS=auto, as many as fit; MICRO=4; WHOLE=0 leaves the whole SOLAR 10.7B out.
# Exit status: 0; 1 when a measurement failed; 77 when there is no GPU and nothing was measured.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${1:-build}
each=${SECONDS_EACH:-20} PYTHON=${PYTHON:-python3} LAYERS=${LAYERS:-auto} MICRO=${MICRO:-4} status=0

"$BUILD/tests/gpus" || {
    [ $? -eq 77 ] && { echo "bench-gpu: skipped: there is no GPU here, nothing was measured"; exit 77; }
    exit 1
}
grep -m1 'model name' /proc/cpuinfo || uname -m
commit=$(git describe --always --dirty 2>/dev/null || cat COMMIT 2>/dev/null || echo unknown)
echo "commit $commit, $(date -u +%Y-%m-%d), $each s a measurement"

step() { "$BUILD/tests/bench_gpu_train" seconds="$each" micro="$MICRO" "$@" || { echo "FAIL bench_gpu_train $*"; status=1; }; }

echo "== training step, SOLAR-shaped layers"
step layers="$LAYERS"
step layers="$LAYERS" recompute=selective
for mode in compile eager; do
    "$PYTHON" tests/bench/peer_torch.py cuda solar bf16 "$mode" "$each" "$LAYERS" "$MICRO" 2>/dev/null || echo "torch $mode: failed, or no $PYTHON"
done
if [ "${WHOLE:-1}" != 0 ]; then
    echo "== SOLAR 10.7B, all 48 layers, full training"
    step layers=48 micro=8 recompute=selective moments=int8 # jobs/solar_one_gpu.yaml
fi
if [ -x "$BUILD/tests/bench_gpu_ops" ]; then
    echo "== operations"
    "$BUILD/tests/bench_gpu_ops" || { echo "FAIL bench_gpu_ops"; status=1; }
fi
exit $status
