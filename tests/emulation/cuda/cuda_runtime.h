// CUDA C++ for the machine of emulate.cpp: what the kernels see of the grid, and launching.
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __align__(...)        // of `memory`, which is aligned to more
#define __shared__     static // kernels.sh makes `extern __shared__` an `extern`

using std::isnan;
using std::max;
using std::min;

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};
struct cudaFuncAttributes {
    int numRegs;
};

extern dim3 gridDim, blockDim, blockIdx, threadIdx;
extern float4 memory[]; // dynamic shared memory

// A thread waits here until all threads of its block (its warp) have come; `all` says that every one of them
// has to. Kept by emulate.cpp.
void emulated_wait(bool warp);
// Room for every thread, EMULATED_SLOT bytes each, that no other exchange of its warp uses now.
void *emulated_slots();
constexpr size_t EMULATED_SLOT = 32;
void emulated_allow(const void *kernel, size_t shared);
cudaError_t emulated_launch(const void *kernel, const cudaLaunchConfig_t *c,
                            const std::function<void()> &thread);

inline void __syncthreads() { emulated_wait(false); }
inline void __syncwarp() { emulated_wait(true); }
int __syncthreads_or(int mine);

template <typename T> T __shfl_xor_sync(unsigned mask, T mine, int lanes) {
    static_assert(sizeof(T) <= 8);
    (void)mask;
    char *slots = static_cast<char *>(emulated_slots());
    unsigned me = threadIdx.x + threadIdx.y * blockDim.x;
    std::memcpy(slots + me * EMULATED_SLOT, &mine, sizeof mine);
    emulated_wait(true);
    T other;
    std::memcpy(&other, slots + (me ^ static_cast<unsigned>(lanes)) * EMULATED_SLOT, sizeof other);
    return other;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned __ballot_sync(unsigned mask, int mine) {
    (void)mask;
    char *slots = static_cast<char *>(emulated_slots());
    unsigned me = threadIdx.x + threadIdx.y * blockDim.x, votes = 0;
    slots[me * EMULATED_SLOT] = mine != 0;
    emulated_wait(true);
    for (unsigned lane = 0; lane < 32; lane++)
        votes |= static_cast<unsigned>(slots[(me / 32 * 32 + lane) * EMULATED_SLOT]) << lane;
    return votes;
}

template <typename T> void __stwb(T *to, T value) { *to = value; }

inline float __uint_as_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, sizeof f);
    return f;
}

template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int shared) {
    emulated_allow(reinterpret_cast<const void *>(kernel), static_cast<size_t>(shared));
    return cudaSuccess;
}
template <typename... P> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, void (*)(P...)) {
    a->numRegs = 1;
    return cudaSuccess;
}
template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *c, void (*kernel)(P...), A... args) {
    return emulated_launch(reinterpret_cast<const void *>(kernel), c, [=] { kernel(args...); });
}

#endif
