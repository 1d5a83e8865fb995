#!/bin/bash
# What `make bench` runs: this machine's figures, and in the same run those of the peers that are installed.
# usage: bench.sh BUILD [MODEL]...       models: stories 20m 110m (default: all)
# In the environment: THREADS="1 2" (default: all cores, and 1 too for stories), DTYPES="fp32 bf16", SECONDS_EACH=10,
# PYTHON=python3 (one that has torch and transformers), LLMC=directory with llm.c's built train_gpt2.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { echo "usage: tests/bench/bench.sh BUILD [MODEL]..." >&2; exit 2; }
BUILD=$1
shift
models=("$@")
[ $# -gt 0 ] || models=(stories 20m 110m)
cores=$(nproc)
threads_for() { # MODEL
    if [ "$1" = stories ] && [ "$cores" -gt 1 ]; then echo "1 $cores"; else echo "$cores"; fi
}
DTYPES=${DTYPES:-fp32 bf16}
each=${SECONDS_EACH:-10}
PYTHON=${PYTHON:-python3}

grep -m1 'model name' /proc/cpuinfo || uname -m
echo "$cores cores, commit $(git describe --always --dirty 2>/dev/null || echo unknown), $("${CC:-gcc}" --version | head -n 1)"
sed -n 's|^// ||; /^Useful FLOP/,/^#include/{/^#include/!p}' tests/bench/bench_train.c

step() { # MODEL DTYPE THREADS [SEQ]
    "$BUILD/tests/bench_train" "$1" "$2" "$3" "$each" ${4:+"$4"}
}
peer() { # MODEL DTYPE THREADS
    local mode
    for mode in eager compile; do
        OMP_NUM_THREADS=$3 "$PYTHON" tests/bench/peer_torch.py "$1" "$2" "$3" "$mode" "$each" 2>/dev/null ||
            echo "torch $mode $1 $2: failed"
    done
}

for model in "${models[@]}"; do
    for threads in ${THREADS:-$(threads_for "$model")}; do
        for dt in $DTYPES; do
            step "$model" "$dt" "$threads"
            peer "$model" "$dt" "$threads"
        done
    done
done

echo "attention at 4096 tokens"
for dt in $DTYPES; do step 20m "$dt" "$cores" 4096; done

if [ -n "${LLMC:-}" ]; then
    echo "llm.c: GPT-2 124M, 4 x 64 tokens"
    { cd "$LLMC" && OMP_NUM_THREADS=$cores timeout 60 ./train_gpt2; } |
        sed -n 's/^step \([0-9]*\).*took \([0-9.]*\) ms.*/\1 \2/p' | awk '$1 > 0 {print 4 * 64 / $2 * 1000}' | sort -n |
        awk '{x[NR] = $1} END {if (NR) printf "llm.c: %.1f tokens/s (median of %d)\n", x[int((NR + 1) / 2)], NR; else print "llm.c: no steps"}' || true # stopped by the time limit
fi

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
"$BUILD/tests/bench_io" tokens "$T"
mkdir "$T/base"
"$BUILD/tests/bench_io" model "$T/base"
timed() { # COMMAND...: seconds, files and all on disk
    local start=$EPOCHREALTIME
    "$@" >/dev/null && sync -f "$T"
    awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN {print b - a}'
}
# Copies as many bytes as the deeper model has: 48 of 32 layers are copied.
for _ in 1 2 3; do
    up=$(timed "$BUILD/solar" upscale "$T/base" "$T/deep" --m 8)
    bytes=$(du -sb "$T/deep" | cut -f1)
    cp=$(timed cp -r "$T/deep" "$T/copy")
    awk -v n="$bytes" -v u="$up" -v c="$cp" 'BEGIN {
        printf "upscale of 32 to 48 layers: %.2f GB/s, cp of as many bytes %.2f GB/s\n", n / u / 1e9, n / c / 1e9}'
    rm -rf "$T/deep" "$T/copy"
done
