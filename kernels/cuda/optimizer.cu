// Sums of long arrays in a fixed order, and AdamW.
#include <cmath>

#include "common.cuh"

// ---- sums: a number of blocks that depends on n only. A thread adds its elements in the same order whether
// it loads them four at a time or one by one.
constexpr int STEP = 4;

template <bool SQUARE, typename E, int N>
static __global__ void sum_kernel(double *pieces, const E *x, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * STEP;
    double sum = 0;
    for (int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * STEP; at < n;
         at += stride) {
        float v[STEP] = {};
        if (N > 1 && at + STEP <= n)
            load<STEP>(v, x + at);
        else
            for (int i = 0; i < STEP && at + i < n; i++) v[i] = to_float(x[at + i]);
#pragma unroll
        for (int i = 0; i < STEP; i++) sum += SQUARE ? static_cast<double>(v[i]) * v[i] : v[i];
    }
    sum = block_reduce(sum, plus());
    if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

static __global__ void sum_pieces_kernel(double *out, const double *pieces, int count) {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
        sum += pieces[i];
    sum = block_reduce(sum, plus());
    if (threadIdx.x == 0) *out = sum;
}

template <bool SQUARE>
static void sum(device *d, const char *op, double *out, dtype dt, const void *x, int64_t n) {
    cuda_device *c = cuda_enter(d);
    unsigned blocks = n > 0 ? many(pieces(n, BLOCK * STEP), SUM_PIECES) : 1;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        with_width<E>(aligned(16, x), [&](auto width) {
            constexpr int N = decltype(width)::value;
            launch(c, op, sum_kernel<SQUARE, E, N>, dim3(blocks), dim3(BLOCK), 0, c->sums, (const E *)x, n);
        });
    });
    launch(c, op, sum_pieces_kernel, dim3(1), dim3(BLOCK), 0, out, c->sums, (int)blocks);
}

void cuda_sum(device *d, double *out, const float *x, int64_t n) { sum<false>(d, "sum", out, DT_F32, x, n); }
void cuda_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n) {
    sum<true>(d, "sumsq", out, dt, x, n);
}

// ---- AdamW

typedef struct adamw_step {
    float grad_scale, keep, beta1, beta2, rate, root, eps; // keep = 1-lr*decay, rate = lr/(1-beta1^t),
} adamw_step;                                              // root = 1/sqrt(1-beta2^t)

__device__ static void update(float &w, float &m, float &v, float grad, const adamw_step &s) {
    float g = grad * s.grad_scale;
    m = m + (1.0f - s.beta1) * (g - m);
    v = s.beta2 * v + (1.0f - s.beta2) * (g * g);
    w = w * s.keep - s.rate * m / (sqrtf(v) * s.root + s.eps);
}

// A thread has up to EACH neighbours of a block of moments, a group of GROUP threads the block; all formats
// share this cut.
constexpr int EACH = 4, GROUP = MOMENT_BLOCK / EACH;

// `count` values as they lie in memory, in one word where WIDE says that all are there and in place.
template <bool WIDE, typename T> __device__ inline void load_raw(T (&to)[EACH], const T *from, int count) {
    using P = pack<T, EACH>;
    if (WIDE && count == EACH) {
        const typename P::word word = *reinterpret_cast<const typename P::word *>(from);
        memcpy(to, &word, sizeof word);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++) to[i] = i < count ? from[i] : T();
    }
}

template <bool WIDE, typename T> __device__ inline void store_raw(T *to, const T (&from)[EACH], int count) {
    using P = pack<T, EACH>;
    if (WIDE && count == EACH) {
        typename P::word word;
        memcpy(&word, from, sizeof word);
        __stwb(reinterpret_cast<typename P::word *>(to), word);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i < count) to[i] = from[i];
    }
}

// ---- weights in fp32: as they are, or put together from their halves

template <bool WIDE>
__device__ inline void load_weights(float (&w)[EACH], const float *at, const int16_t *, int count) {
    load_raw<WIDE>(w, at, count);
}
template <bool WIDE>
__device__ inline void load_weights(float (&w)[EACH], const bf16 *at, const int16_t *rest, int count) {
    bf16 near[EACH];
    int16_t more[EACH];
    load_raw<WIDE>(near, at, count), load_raw<WIDE>(more, rest, count);
#pragma unroll
    for (int i = 0; i < EACH; i++) w[i] = float_join(near[i], more[i]);
}

template <bool WIDE>
__device__ inline void store_weights(float *at, int16_t *, const float (&w)[EACH], int count) {
    store_raw<WIDE>(at, w, count);
}
template <bool WIDE>
__device__ inline void store_weights(bf16 *at, int16_t *rest, const float (&w)[EACH], int count) {
    bf16 near[EACH];
    int16_t more[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        halves h = float_split(w[i]);
        near[i] = h.near, more[i] = h.rest;
    }
    store_raw<WIDE>(at, near, count), store_raw<WIDE>(rest, more, count);
}

// ---- moments in each form. `largest` is the block's.

template <bool WIDE>
__device__ inline void load_moment(float (&x)[EACH], const float *at, const float *, bool, int count) {
    load_raw<WIDE>(x, at, count);
}
template <bool WIDE>
__device__ inline void load_moment(float (&x)[EACH], const bf16 *at, const float *, bool, int count) {
    bf16 raw[EACH];
    load_raw<WIDE>(raw, at, count);
#pragma unroll
    for (int i = 0; i < EACH; i++) x[i] = to_float(raw[i]);
}
template <bool WIDE>
__device__ inline void load_moment(float (&x)[EACH], const uint8_t *at, const float *largest, bool second,
                                   int count) {
    uint8_t raw[EACH];
    load_raw<WIDE>(raw, at, count);
    float most = count > 0 ? *largest : 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) x[i] = moment_decode(raw[i], most, second);
}

__device__ inline uint32_t half_of(uint32_t bits, bool second) {
    return second ? bits >> 16 : bits & 0xffffu;
}

template <bool WIDE>
__device__ inline void store_moment(float *at, float *, const float (&x)[EACH], const uint32_t (&)[EACH],
                                    bool, int count) {
    store_raw<WIDE>(at, x, count);
}
template <bool WIDE>
__device__ inline void store_moment(bf16 *at, float *, const float (&x)[EACH], const uint32_t (&bits)[EACH],
                                    bool second, int count) {
    bf16 raw[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) raw[i] = moment_round(x[i], half_of(bits[i], second));
    store_raw<WIDE>(at, raw, count);
}
// All threads of a warp call it, also those that have nothing.
template <bool WIDE>
__device__ inline void store_moment(uint8_t *at, float *largest, const float (&x)[EACH],
                                    const uint32_t (&bits)[EACH], bool second, int count) {
    float most = 0;
    uint8_t raw[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (i < count) most = fmaxf(most, fabsf(x[i]));
#pragma unroll
    for (int other = GROUP / 2; other > 0; other /= 2)
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, other));
#pragma unroll
    for (int i = 0; i < EACH; i++) raw[i] = moment_encode(x[i], most, second, half_of(bits[i], second));
    store_raw<WIDE>(at, raw, count);
    if (count > 0 && threadIdx.x % GROUP == 0) *largest = most;
}

// ---- random numbers of an element, by its place in the tensor

typedef struct places {
    uint64_t key;
    int64_t origin, at, cols, width;
} places;

__device__ static uint32_t roll(const places &p, int64_t i) {
    int64_t place = p.origin + p.at + i;
    if (p.cols != p.width) place = p.origin + (p.at + i) / p.cols * p.width + (p.at + i) % p.cols;
    uint64_t whole = static_cast<uint64_t>(place);
    return moment_random(moment_dice_of(p.key, whole), static_cast<uint32_t>(whole));
}

// ---- the update

template <typename E, typename G, typename M> struct adamw_arrays {
    E *weight;
    int16_t *rest;
    const G *grad;
    M *m, *v;
    float *m_largest, *v_largest;
    int64_t n, lead, blocks;
};

template <typename E, typename G, typename M, bool WIDE>
static __global__ void adamw_kernel(adamw_arrays<E, G, M> a, adamw_step s, places p) {
    int64_t lane = threadIdx.x % GROUP,
            first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / GROUP;
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x / GROUP;
    // Whole warps take part to the end, with nothing to do if need be.
    for (int64_t b = first; b - b % (WARP / GROUP) < a.blocks; b += stride) {
        int64_t begin = b ? a.lead + (b - 1) * MOMENT_BLOCK : 0, length = b ? int64_t{MOMENT_BLOCK} : a.lead;
        int64_t end = b < a.blocks ? (begin + length < a.n ? begin + length : a.n) : 0,
                at = begin + lane * EACH;
        int count = at >= end ? 0 : end - at < EACH ? static_cast<int>(end - at) : EACH;
        float w[EACH], m[EACH], v[EACH];
        G g[EACH];
        uint32_t bits[EACH] = {};
        load_weights<WIDE>(w, a.weight + at, a.rest + at, count);
        load_raw<WIDE>(g, a.grad + at, count);
        load_moment<WIDE>(m, a.m + at, a.m_largest + b, false, count);
        load_moment<WIDE>(v, a.v + at, a.v_largest + b, true, count);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            update(w[i], m[i], v[i], to_float(g[i]), s);
            if (!std::is_same<M, float>::value) bits[i] = roll(p, at + i);
        }
        __syncwarp(); // a block's largest are read by all before they are written
        store_moment<WIDE>(a.m + at, a.m_largest + b, m, bits, false, count);
        store_moment<WIDE>(a.v + at, a.v_largest + b, v, bits, true, count);
        store_weights<WIDE>(a.weight + at, a.rest + at, w, count);
    }
}

// Words of EACH elements have to begin where words may.
template <typename... P> static bool in_words(const P *...p) {
    return ((reinterpret_cast<uintptr_t>(p) % (sizeof(P) * EACH) == 0) && ...);
}

template <typename E, typename G, typename M>
static void launch_adamw(cuda_device *c, const adamw *a, const adamw_step &s) {
    int64_t lead = a->form == MOMENTS_INT8 ? a->lead : static_cast<int64_t>(MOMENT_BLOCK);
    adamw_arrays<E, G, M> arrays = {
        (E *)a->weight, a->rest, (const G *)a->grad,        (M *)a->m, (M *)a->v, a->m_largest, a->v_largest,
        a->n,           lead,    moments_blocks(a->n, lead)};
    places p = {a->key, a->origin, a->at, a->cols, a->width};
    dim3 grid(many(pieces(arrays.blocks * GROUP, BLOCK), INT32_MAX));
    if (lead % EACH == 0 && in_words(arrays.weight, arrays.rest, arrays.grad, arrays.m, arrays.v))
        launch(c, "adamw", adamw_kernel<E, G, M, true>, grid, dim3(BLOCK), 0, arrays, s, p);
    else
        launch(c, "adamw", adamw_kernel<E, G, M, false>, grid, dim3(BLOCK), 0, arrays, s, p);
}

void cuda_adamw(device *d, const adamw *a) {
    cuda_device *c = cuda_enter(d);
    adamw_step s = {
        a->grad_scale,
        static_cast<float>(1.0 - static_cast<double>(a->lr) * a->decay),
        a->beta1,
        a->beta2,
        static_cast<float>(a->lr / (1.0 - std::pow(static_cast<double>(a->beta1), a->step))),
        static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(static_cast<double>(a->beta2), a->step))),
        a->eps};
    with_types(a->dt, a->gdt, [&](auto element, auto gradient) {
        using E = decltype(element);
        using G = decltype(gradient);
        switch (a->form) {
        case MOMENTS_F32: launch_adamw<E, G, float>(c, a, s); break;
        case MOMENTS_BF16: launch_adamw<E, G, bf16>(c, a, s); break;
        case MOMENTS_INT8: launch_adamw<E, G, uint8_t>(c, a, s); break;
        }
    });
}
