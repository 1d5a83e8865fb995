#!/bin/bash
# How fast checkpoints are saved and loaded, on this file system, beside what the disk gives: plain writes with a
# sync (as dd conv=fsync), cat for reading, memcpy for the copy that training waits for; and beside
# torch.distributed.checkpoint on the same tensors, where there is a python with torch.
# usage: tests/bench/checkpoint.sh [DIR]     DIR lies on the file system that is measured; default: a temporary one
# RANKS=1, GIGABYTES=1.1, ROUNDS=3, PYTHON=python3 in the environment. Wants the machine for itself.
set -eu
cd "$(dirname "$0")/../.."
BUILD=$(realpath "${BUILD:-build}")
RANKS=${RANKS:-1} GIGABYTES=${GIGABYTES:-1.1} ROUNDS=${ROUNDS:-3} PYTHON=${PYTHON:-python3}
. jobs/local_mpi.sh
if [ $# -gt 0 ]; then W=$1/solar-bench-$$; mkdir -p "$W"; else W=$(mktemp -d); fi
trap 'rm -rf "$W"' EXIT
export OMP_NUM_THREADS=1
echo "solar $("$BUILD/solar" --version | cut -d' ' -f2-), $(nproc --all) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $RANKS rank(s), $(stat -f -c %T "$W"), $(uname -r)"

middle() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
seconds() { local start end; start=$(date +%s.%N); "$@" >"$W/out" 2>&1; end=$(date +%s.%N); awk "BEGIN {print $end - $start}"; }

mpirun -np "$RANKS" "$BUILD/tests/bench_checkpoint" "$W" "$GIGABYTES" "$ROUNDS" >"$W/figures"
get() { awk -v k="$1" '$1 == k {print $2}' "$W/figures"; }
bytes=$(du -cb "$W"/run/latest/*.safetensors "$W"/run/latest/solar/*.safetensors | tail -n 1 | cut -f1)
for _ in $(seq "$ROUNDS"); do seconds sh -c "cat $W/run/latest/*.safetensors $W/run/latest/solar/*.safetensors >/dev/null"; done | middle >"$W/cat.s"
awk -v b="$bytes" -v d="$(get plain)" -v cat="$(cat "$W/cat.s")" -v write="$(get write)" -v load="$(get load)" -v stall="$(get stall)" \
    -v copy="$(get memcpy)" -v sums="$(get sums)" 'BEGIN {
    c = b / 1e9 / cat; l = b / 1e9 / load
    printf "state                        %8.2f GB\n", b / 1e9
    printf "training waits for the copy  %8.3f s     memcpy of the same %.3f s: %.0f %%\n", stall, copy, 100 * stall / copy
    printf "write                        %8.2f GB/s  plain writes and a sync, in turn with it, %.2f GB/s: %.0f %%\n", write, d, 100 * write / d
    printf "of which sums                %8.1f %%\n", sums
    printf "load, every range checked    %8.2f GB/s  cat (from the page cache) %.2f GB/s: %.0f %%\n", l, c, 100 * l / c }'
if "$PYTHON" -c 'import torch' 2>/dev/null; then
    "$BUILD/tests/bench_checkpoint" "$W" "$GIGABYTES" 1 --tensors >"$W/tensors"
    rm -rf "$W/run"
    if [ "$RANKS" = 1 ]; then "$PYTHON" tests/bench/dcp.py "$W/tensors" "$W/dcp" "$ROUNDS" 2>"$W/err" || tail -n 3 "$W/err"
    else "$PYTHON" -m torch.distributed.run --nproc-per-node "$RANKS" tests/bench/dcp.py "$W/tensors" "$W/dcp" "$ROUNDS" 2>"$W/err" || tail -n 3 "$W/err"; fi |
        awk '{printf "torch.distributed.checkpoint: %-18s %s %s\n", $1, $2, $3}'
else
    echo "torch.distributed.checkpoint: $PYTHON has no torch, not measured (PYTHON=...)"
fi
