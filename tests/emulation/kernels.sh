#!/bin/bash
# The kernels of kernels/cuda on an emulated GPU (emulate.cpp), against the CPU device: tests/unit/test_cuda.c with
# the address and undefined-behaviour sanitizers. Needs g++ and the built library; no GPU, no CUDA toolkit.
# limit: 600
# usage: kernels.sh [BUILD]      the build's directory; default $BUILD, else build
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=${1:-${BUILD:-build}}
[ -f "$BUILD/libsolar.a" ] || { echo "kernels.sh: no $BUILD/libsolar.a: make build" >&2; exit 2; }
here=tests/emulation
to=$BUILD/emulation
mkdir -p "$to" || exit 2
san="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
# Packs are read through other types than they were written, as on a GPU.
flags="-O1 -g $san -fno-strict-aliasing -Wall -Wextra -Werror -I$here/cuda -Iinclude -Ikernels"
cxx="g++ -std=c++17 $flags -Wno-unknown-pragmas -Wno-unused-function -Ikernels/cuda"
cc="gcc -std=c17 -D_GNU_SOURCE $flags -fopenmp"

# One object for every source, two at a time. The dynamic shared memory of a kernel is an array of emulate.cpp.
build() {
    local f
    for f in kernels/cuda/*.cu; do
        sed 's/extern __shared__/extern/' "$f" >"$to/$(basename "$f" .cu).cpp"
    done
    cp $here/emulate.cpp "$to"
    rm -f "$to"/*.o
    for f in "$to"/*.cpp; do echo "$cxx -c $f -o $f.o"; done >"$to/commands"
    echo "$cc -c kernels/cuda/device.c -o $to/device.o" >>"$to/commands"
    echo "$cc -c tests/unit/test_cuda.c -o $to/test_cuda.o" >>"$to/commands"
    tr '\n' '\0' <"$to/commands" | xargs -0 -P 2 -n 1 sh -c || return 1
    # shellcheck disable=SC2086 # a list of options
    g++ $san -fopenmp -o "$to/test_cuda" "$to"/*.o "$BUILD/libsolar.a" -lcmocka -lm
}

log=$to/log
if ! build >"$log" 2>&1; then
    cat "$log"
    echo "FAIL the kernels do not compile for the emulated GPU"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
status=0
ASAN_OPTIONS=detect_stack_use_after_return=0 "$to/test_cuda" >"$log" 2>&1 || status=$?
[ $status -eq 0 ] || cat "$log"
read -r passed failed <<<"$(awk '/^\[  PASSED  \]/ {p += $4}
    /^\[  FAILED  \] [0-9]+ test/ {f += $4}
    END {print p + 0, f + 0}' "$log")"
[ $status -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
