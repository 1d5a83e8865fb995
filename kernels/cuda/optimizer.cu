// Sums of long arrays in a fixed order, and AdamW.
#include <cmath>

#include "common.cuh"

// ---- sums: a number of blocks that depends on n only. A thread adds its elements in the same order whether
// it loads them four at a time or one by one.
constexpr int STEP = 4;

template <bool SQUARE, int N> static __global__ void sum_kernel(double *pieces, const float *x, int64_t n) {
    int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * STEP;
    double sum = 0;
    for (int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * STEP; at < n;
         at += stride) {
        float v[STEP] = {};
        if (N == STEP && at + STEP <= n)
            load<STEP>(v, x + at);
        else
            for (int i = 0; i < STEP && at + i < n; i++) v[i] = x[at + i];
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

template <bool SQUARE> static void sum(device *d, const char *op, double *out, const float *x, int64_t n) {
    cuda_device *c = cuda_enter(d);
    unsigned blocks = n > 0 ? many(pieces(n, BLOCK * STEP), SUM_PIECES) : 1;
    with_width<float>(aligned(16, x), [&](auto width) {
        constexpr int N = decltype(width)::value;
        launch(c, op, sum_kernel<SQUARE, N>, dim3(blocks), dim3(BLOCK), 0, c->sums, x, n);
    });
    launch(c, op, sum_pieces_kernel, dim3(1), dim3(BLOCK), 0, out, c->sums, (int)blocks);
}

void cuda_sum(device *d, double *out, const float *x, int64_t n) { sum<false>(d, "sum", out, x, n); }
void cuda_sumsq(device *d, double *out, const float *x, int64_t n) { sum<true>(d, "sumsq", out, x, n); }

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

// N values as they lie in memory, moved in words of up to 16 bytes.
template <int N, typename T> __device__ inline void load_raw(T (&to)[N], const T *from) {
    using P = pack<T, N>;
#pragma unroll
    for (int w = 0; w < P::WORDS; w++) {
        const typename P::word word = reinterpret_cast<const typename P::word *>(from)[w];
        memcpy(to + w * P::EACH, &word, sizeof word);
    }
}

template <int N, typename T> __device__ inline void store_raw(T *to, const T (&from)[N]) {
    using P = pack<T, N>;
#pragma unroll
    for (int w = 0; w < P::WORDS; w++) {
        typename P::word word;
        memcpy(&word, from + w * P::EACH, sizeof word);
        __stwb(reinterpret_cast<typename P::word *>(to) + w, word);
    }
}

// Weights in fp32: as they are, or put together from the halves.
template <int N> __device__ inline void load_weights(float (&w)[N], const float *at, const int16_t *) {
    load<N>(w, at);
}
template <int N> __device__ inline void load_weights(float (&w)[N], const bf16 *at, const int16_t *rest) {
    bf16 near[N];
    int16_t more[N];
    load_raw<N>(near, at), load_raw<N>(more, rest);
#pragma unroll
    for (int i = 0; i < N; i++) w[i] = float_join(near[i], more[i]);
}

template <int N> __device__ inline void store_weights(float *at, int16_t *, const float (&w)[N]) {
    store<N>(at, w);
}
template <int N> __device__ inline void store_weights(bf16 *at, int16_t *rest, const float (&w)[N]) {
    bf16 near[N];
    int16_t more[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        halves h = float_split(w[i]);
        near[i] = h.near, more[i] = h.rest;
    }
    store_raw<N>(at, near), store_raw<N>(rest, more);
}

template <typename E, int N>
__device__ inline void update_pack(E *weight, int16_t *rest, float *m, float *v, const float *grad,
                                   int64_t at, const adamw_step &s) {
    float w[N], first[N], second[N], g[N];
    load_weights<N>(w, weight + at, rest + at);
    load<N>(first, m + at), load<N>(second, v + at), load<N>(g, grad + at);
#pragma unroll
    for (int i = 0; i < N; i++) update(w[i], first[i], second[i], g[i], s);
    store<N>(m + at, first), store<N>(v + at, second);
    store_weights<N>(weight + at, rest + at, w);
}

template <typename E, int N>
static __global__ void adamw_kernel(E *weight, int16_t *rest, float *m, float *v, const float *grad,
                                    int64_t n, adamw_step s) {
    EACH_COLUMN(p, n / N) { update_pack<E, N>(weight, rest, m, v, grad, p * N, s); }
    EACH_COLUMN(i, n % N) { update_pack<E, 1>(weight, rest, m, v, grad, n - n % N + i, s); }
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
    bool wide = aligned(16, a->weight, a->rest, a->m, a->v, a->grad);
    with_type(a->dt, [&](auto element) {
        using E = decltype(element);
        with_width<float>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(a->n > 0, pieces(a->n, N));
            launch(c, "adamw", adamw_kernel<E, N>, at.grid, at.block, 0, (E *)a->weight, a->rest, a->m, a->v,
                   a->grad, a->n, s);
        });
    });
}
