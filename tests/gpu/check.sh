#!/bin/bash
# Every test that wants a GPU, on the GPUs of this machine, in less than eight minutes: the operations against the CPU, the
# whole model against Transformers' values, training on one rank, on meshes that share a GPU, and over NCCL where there are
# GPUs enough; resumes; checkpoints from the CPU and back. Ends with N passed, N failed, N skipped.
# usage: tests/gpu/check.sh [BUILD]     in a checkout that is built with CUDA, or in an unpacked bundle (bundle.sh)
# Exit status: 0; 1 when a test failed; 77 when there is no GPU and nothing was tested.
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=$(realpath "${1:-build}") || exit 2
export BUILD
began=$SECONDS
passed=0 failed=0 skipped=0

if ! "$BUILD/tests/gpus"; then
    [ "${PIPESTATUS[0]}" -ne 77 ] || { echo "check-gpu: skipped: there is no GPU here, nothing was tested"; exit 77; }
    echo "check-gpu: a GPU cannot be used"
    exit 1
fi
. jobs/local_mpi.sh
GPUS=$("$BUILD/tests/gpus" | grep -c '^GPU ')
export GPUS
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

count_cmocka() {
    awk '/^\[  PASSED  \]/ {p += $4} /^\[  FAILED  \] [0-9]+ test/ {f += $4} /^\[  SKIPPED \] [0-9]+ test/ {s += $4}
         END {print p + 0, f + 0, s + 0}' "$log"
}
count_script() { sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log" | tail -n 1; }

# run NAME SECONDS COUNTER COMMAND...
run() {
    local name=$1 limit=$2 counter=$3 start=$SECONDS status=0 p f s
    shift 3
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null || status=$?
    read -r p f s <<<"$($counter)"
    : "${p:=0}" "${f:=0}" "${s:=0}"
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ] || [ $((p + f)) -eq 0 ]; then f=$((f + 1)); fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || sed 's/^/    /' "$log"
    printf '%-4s %-40s %4d passed, %d failed, %d skipped  (%d s, exit status %d)\n' "$([ "$f" -eq 0 ] && echo ok || echo FAIL)" \
        "$name" "$p" "$f" "$s" $((SECONDS - start)) "$status"
}

for t in "$BUILD"/tests/test_cuda*; do
    case $t in *.d) continue ;; esac
    run "operations against the CPU, $(basename "$t")" 120 count_cmocka "$t"
done
run "the model against Transformers" 90 count_cmocka env SOLAR_TEST_DEVICE=cuda "$BUILD/tests/test_oracle"
run "training, meshes, resumes" 200 count_script env GPU_SOLAR="$BUILD/solar" bash tests/emulation/program.sh
echo "time: $((SECONDS - began)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
