#!/bin/bash
# The kernels of kernels/cuda on an emulated GPU (emulate.cpp), against the CPU device: tests/unit/test_cuda*.c
# with the address and undefined-behaviour sanitizers. Needs g++ and the built library; no GPU, no CUDA toolkit.
# limit: 600
# usage: kernels.sh [BUILD]      the build's directory; default $BUILD, else build
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${1:-${BUILD:-build}}
[ -f "$BUILD/libsolar.a" ] || { echo "kernels.sh: no $BUILD/libsolar.a: make build" >&2; exit 2; }
mkdir -p "$BUILD/emulation" || exit 2

log=$BUILD/emulation/log
if ! make -f tests/emulation/emulation.mk BUILD="$BUILD" kernels >"$log" 2>&1; then
    cat "$log"
    echo "FAIL the kernels do not compile for the emulated GPU"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
# test_of NAME: beside each other, as every one of them uses one core
test_of() { ASAN_OPTIONS=detect_stack_use_after_return=0 "$BUILD/emulation/$1" >"$log.$1" 2>&1; }
status=0
test_of test_cuda &
test_of test_cuda_attention || status=$?
wait $! || status=$?
cat "$log".test_cuda* >"$log"
[ $status -eq 0 ] || cat "$log"
read -r passed failed <<<"$(awk '/^\[  PASSED  \]/ {p += $4}
    /^\[  FAILED  \] [0-9]+ test/ {f += $4}
    END {print p + 0, f + 0}' "$log")"
[ $status -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
# The benchmark runs through, whatever its figures.
if "$BUILD/emulation/bench_gpu_ops" tiny >"$log" 2>&1 && [ "$(grep -cE 'TFLOP/s|of a copy' "$log")" -eq 32 ]; then
    passed=$((passed + 1))
else
    cat "$log"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
