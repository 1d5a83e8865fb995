// What the kernels share: elements of either type as floats, alone or in packs, sums over a block of threads
// in a fixed order, and launching.
//
// Every kernel is written once, for float and for bf16 (a template over the element type E). Where sizes and
// addresses allow, a thread moves packs of N elements, 16 bytes or less; else N is 1.
#ifndef SOLAR_CUDA_COMMON_CUH
#define SOLAR_CUDA_COMMON_CUH

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "device.h"

constexpr int WARP = 32;
constexpr int BLOCK = 256;       // threads of a block, usually
constexpr int MOST_BLOCK = 1024; // and at most
constexpr unsigned ALL_LANES = 0xffffffffu;

// ---- elements

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }

template <typename E> __device__ inline E from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
// To nearest, ties to even; NaN stays NaN.
template <> __device__ inline bf16 from_float<bf16>(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

// As it will be read back.
template <typename E> __device__ inline float rounded(float x) { return to_float(from_float<E>(x)); }

// What one instruction moves: 2, 4, 8 or 16 bytes, at a multiple of as many.
template <size_t BYTES> struct word_of;
template <> struct word_of<2> { using type = unsigned short; };
template <> struct word_of<4> { using type = unsigned; };
template <> struct word_of<8> { using type = uint2; };
template <> struct word_of<16> { using type = uint4; };

// N elements seen as words.
template <typename E, int N> struct pack {
    static constexpr size_t BYTES = sizeof(E) * N < 16 ? sizeof(E) * N : 16;
    static constexpr int WORDS = sizeof(E) * N / BYTES, EACH = N / WORDS;
    using word = typename word_of<BYTES>::type;
};

template <int N, typename E> __device__ inline void load(float (&to)[N], const E *from) {
    using P = pack<E, N>;
#pragma unroll
    for (int w = 0; w < P::WORDS; w++) {
        const typename P::word word = reinterpret_cast<const typename P::word *>(from)[w];
        E x[P::EACH];
        memcpy(x, &word, sizeof word);
#pragma unroll
        for (int i = 0; i < P::EACH; i++) to[w * P::EACH + i] = to_float(x[i]);
    }
}

// What comes for later use as it is, in few registers.
template <int N, typename E> struct packed {
    typename pack<E, N>::word word[pack<E, N>::WORDS];
    __device__ void load_from(const E *from) {
#pragma unroll
        for (int w = 0; w < pack<E, N>::WORDS; w++)
            word[w] = reinterpret_cast<const typename pack<E, N>::word *>(from)[w];
    }
    __device__ void unpack(float (&to)[N]) const {
        E x[N];
        memcpy(x, word, sizeof x);
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = to_float(x[i]);
    }
};

template <int N, typename E, typename F>
__device__ inline void store_words(E *to, const float (&from)[N], F write) {
    using P = pack<E, N>;
#pragma unroll
    for (int w = 0; w < P::WORDS; w++) {
        typename P::word word;
        E x[P::EACH];
#pragma unroll
        for (int i = 0; i < P::EACH; i++) x[i] = from_float<E>(from[w * P::EACH + i]);
        memcpy(&word, x, sizeof word);
        write(reinterpret_cast<typename P::word *>(to) + w, word);
    }
}

// To global memory: the compiler takes plain stores of words apart where it loses sight of their alignment.
struct global_word {
    template <typename W> __device__ void operator()(W *to, W word) const { __stwb(to, word); }
};
template <int N, typename E> __device__ inline void store(E *to, const float (&from)[N]) {
    store_words<N>(to, from, global_word());
}

// To shared memory.
struct shared_word {
    template <typename W> __device__ void operator()(W *to, W word) const { *to = word; }
};
template <int N, typename E> __device__ inline void store_shared(E *to, const float (&from)[N]) {
    store_words<N>(to, from, shared_word());
}

// ---- sums and maxima over all threads of a block. Every thread gets the result; the order of the sum
// depends on the number of threads only. The block holds whole warps, and all threads must call.

struct plus {
    template <typename T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct larger { // passes over NaN
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

template <typename T, typename F> __device__ inline T warp_reduce(T v, F f) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) v = f(v, __shfl_xor_sync(ALL_LANES, v, other));
    return v;
}

template <typename T, typename F> __device__ inline T block_reduce(T v, F f) {
    __shared__ T part[MOST_BLOCK / WARP];
    v = warp_reduce(v, f);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    T all = part[0];
    for (int w = 1; w < static_cast<int>(blockDim.x) / WARP; w++) all = f(all, part[w]);
    __syncthreads(); // `part` may be written again
    return all;
}

// ---- launching

inline int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Blocks for n pieces of work that the kernel loops over: as many, up to what a grid may hold.
inline unsigned many(int64_t n, int64_t most) { return static_cast<unsigned>(n < most ? n : most); }

// Threads for a row of n packs: whole warps.
inline unsigned row_threads(int64_t n) {
    return n < BLOCK ? static_cast<unsigned>(pieces(n, WARP) * WARP) : BLOCK;
}

// One thread for every column of a plane, rows looped over by `blockIdx.y`. The blocks of a row are alike.
struct plane {
    dim3 grid, block;
    plane(int64_t rows, int64_t columns) : grid(0, 0), block(1) {
        if (rows <= 0 || columns <= 0) return;
        grid.x = many(pieces(columns, BLOCK), INT32_MAX);
        block.x = row_threads(pieces(columns, grid.x));
        grid.y = many(rows, UINT16_MAX);
    }
};

#define EACH_ROW(t, rows) for (int64_t t = blockIdx.y; t < (rows); t += gridDim.y)
#define EACH_COLUMN(j, columns)                                                                              \
    for (int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; j < (columns);             \
         j += static_cast<int64_t>(gridDim.x) * blockDim.x)

// Queues a kernel. An empty grid is no work, not an error.
template <typename... P, typename... A>
void launch(cuda_device *c, const char *op, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
            A... args) {
    constexpr size_t WITHOUT_ASKING = 48 << 10;
    if (grid.x == 0 || grid.y == 0) return;
    if (shared > WITHOUT_ASKING)
        cuda_check(c, op,
                   cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared)));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = c->stream;
    cuda_check(c, op, cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

// f(E()) with the element type that dt names.
template <typename F> void with_type(dtype dt, F f) {
    if (dt == DT_F32)
        f(float());
    else
        f(bf16());
}

// f(E(), G()) with the types that dt and gdt, of gradients, name.
template <typename F> void with_types(dtype dt, dtype gdt, F f) {
    with_type(dt, [&](auto element) { with_type(gdt, [&](auto gradient) { f(element, gradient); }); });
}

template <int N> using width = std::integral_constant<int, N>;

// f(width<N>()) with N elements in 16 bytes if `wide`, else with 1.
template <typename E, typename F> void with_width(bool wide, F f) {
    if (wide)
        f(width<16 / sizeof(E)>());
    else
        f(width<1>());
}

// Whether all addresses (NULL is fine) are multiples of `bytes`.
template <typename... P> bool aligned(size_t bytes, const P *...p) {
    return ((reinterpret_cast<uintptr_t>(p) % bytes == 0) && ...);
}

#endif
