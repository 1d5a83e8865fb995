#!/bin/bash
# Packs what tests and measurements on a GPU need into BUILD/gpu-bundle.tar.gz: the built programs, the libraries that
# they load, Open MPI, scripts and fixtures, so that a machine with a GPU, a driver and a shell is enough.
# usage: tests/gpu/bundle.sh [BUILD]
# CUDA_LIBRARIES=0 leaves CUDA's own libraries out (over a gigabyte) for machines that have them in /usr/local/cuda or in
# LD_LIBRARY_PATH. There: tar -xf gpu-bundle.tar.gz; gpu-bundle/run check|bench|CHECK_OR_BENCH_COMMAND...
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
to=$BUILD/gpu-bundle
[ -x "$BUILD/solar" ] && [ -x "$BUILD/tests/gpus" ] || { echo "bundle.sh: no programs in $BUILD: make program testbins CUDA=1" >&2; exit 2; }
rm -rf "$to"
mkdir -p "$to/build/tests" "$to/lib" "$to/mpi/bin" "$to/tests"

programs=(test_cuda test_cuda_attention test_oracle gpus compare bench_gpu_train)
[ ! -x "$BUILD/tests/bench_gpu_ops" ] || programs+=(bench_gpu_ops)
cp "$BUILD/solar" "$to/build/"
for p in "${programs[@]}"; do cp "$BUILD/tests/$p" "$to/build/tests/"; done
strip --strip-debug "$to/build/solar" "$to"/build/tests/*
cp -r tests/gpu tests/emulation tests/layout tests/oracle tests/bench "$to/tests/"
cp -r jobs slurm LICENSE "$to/"
git describe --always --dirty >"$to/COMMIT" 2>/dev/null || echo unknown >"$to/COMMIT"

# Open MPI: what starts ranks, and its plugins and texts, as its own tools say where they lie.
prefix=$(ompi_info --path prefix --parsable | cut -d: -f3)
plugins=$(ompi_info --path pkglibdir --parsable | cut -d: -f3)
texts=$(ompi_info --path pkgdatadir --parsable | cut -d: -f3)
for b in mpirun orterun orted prterun prted prte; do
    ! command -v $b >/dev/null || cp -L "$(command -v $b)" "$to/mpi/bin/"
done
for tree in "$plugins" "$texts" "$prefix"/lib/*/pmix*/lib/pmix "$prefix"/share/pmix*; do # to the same places below it
    [ -d "$tree" ] || continue
    mkdir -p "$to/mpi/$(dirname "${tree#"$prefix"/}")"
    cp -rL "$tree" "$to/mpi/${tree#"$prefix"/}"
done

# Libraries of all programs and plugins, but those of the C library, which belong to the machine.
mapfile -t objects < <(find "$to/build" "$to/mpi" -type f)
{ ldd "${objects[@]}" 2>/dev/null || true; } |
     awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | while read -r so; do
    case $(basename "$so") in
    ld-linux* | libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so* | libresolv.so* | libutil.so* | libcuda.so* | libnvidia-*) continue ;;
    libcublas* | libcudart* | libnccl* | libcudnn*) [ "${CUDA_LIBRARIES:-1}" = 1 ] || continue ;;
    esac
    cp -L "$so" "$to/lib/"
done

cat >"$to/run" <<'END'
#!/bin/sh
# run check | run bench | run COMMAND...: in this bundle, with its libraries and its Open MPI
cd "$(dirname "$0")" || exit 2
here=$PWD
export LD_LIBRARY_PATH="$here/lib:${LD_LIBRARY_PATH:-}:/usr/local/cuda/lib64"
export PATH="$here/mpi/bin:$PATH" OPAL_PREFIX="$here/mpi" PRTE_PREFIX="$here/mpi"
export PMIX_PREFIX="$here/mpi"
case ${1:-check} in
check) exec bash tests/gpu/check.sh build ;;
bench) exec bash tests/gpu/bench.sh build ;;
*) exec "$@" ;;
esac
END
chmod +x "$to/run"
echo "prefix of the Open MPI that was packed: $prefix" >"$to/mpi/FROM"
tar -C "$BUILD" -czf "$BUILD/gpu-bundle.tar.gz" gpu-bundle
du -sh "$BUILD/gpu-bundle.tar.gz" | sed 's/\t/  /'
