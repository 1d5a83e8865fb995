#!/bin/bash
# What the compiler says of the CUDA kernels: registers a thread, bytes spilled, bytes of static shared memory, and how
# many instructions of the tensor cores (HMMA), loads of their factors (LDSM) and copies in the background (LDGSTS) the
# code holds. Needs nvcc; the instructions also cuobjdump and nvdisasm, and are - without.
# usage: cuda_report.sh [PATTERN [ARCH]]     kernels whose names hold PATTERN (awk); default: all, 90a
set -eu
cd "$(dirname "$0")/../.."
pattern=${1:-.} arch=${2:-90a}
NVCC=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$NVCC" ] || { echo "cuda_report.sh: no nvcc: load the CUDA module, or set NVCC=" >&2; exit 2; }
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT

# name registers spilled shared
sizes() {
    c++filt | awk '/Compiling entry function/ {sub(/^[^\047]*\047(void )?/, ""); sub(/\(.*/, ""); gsub(/ /, ""); name = $0}
        /spill stores/ {spilled = $5 + $9}
        /Used [0-9]+ registers/ {
            shared = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^registers/) registers = $(i - 1)
                if ($i ~ /^smem/) shared = $(i - 2)
            }
            print name, registers, spilled, shared}'
}

# name HMMA LDSM LDGSTS
instructions() {
    command -v cuobjdump >/dev/null || return 0
    cuobjdump -sass "$1" | c++filt | awk '/Function : / {name = $0; sub(/.*Function : (void )?/, "", name)
            sub(/\(.*/, "", name); gsub(/ /, "", name); names[name]}
        {for (i = 2; i < 5; i++) {split($i, op, "."); n[name, op[1]] += op[1] ~ /^(HMMA|LDSM|LDGSTS)$/}}
        END {for (k in names) print k, n[k, "HMMA"] + 0, n[k, "LDSM"] + 0, n[k, "LDGSTS"] + 0}'
}

for f in kernels/cuda/*.cu; do
    "$NVCC" -std=c++17 -O3 -ccbin g++ -Iinclude -DSOLAR_CUDA -gencode "arch=compute_$arch,code=sm_$arch" -Xptxas -v \
        -c "$f" -o "$to/object" 2>"$to/log" || { cat "$to/log" >&2; exit 1; }
    sizes <"$to/log" | sort >>"$to/sizes"
    instructions "$to/object" >>"$to/instructions"
done
sort "$to/sizes" | awk -v pattern="$pattern" -v list="$to/instructions" 'BEGIN {
        while ((getline line < list) > 0) {split(line, w, " "); of[w[1]] = w[2] " " w[3] " " w[4]}
        print "kernel registers spilled shared HMMA LDSM LDGSTS"}
    $1 ~ pattern {print $0, ($1 in of) ? of[$1] : "- - -"}' | column -t
