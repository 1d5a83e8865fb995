// RMSNorm, forward and backward.
#include "common.cuh"

// Rows looped over by blocks, packs of a row by the threads of a block.
#define EACH_BLOCK_ROW(t, rows) for (int64_t t = blockIdx.x; t < (rows); t += gridDim.x)
#define EACH_PACK(p, packs)     for (int64_t p = threadIdx.x; p < (packs); p += blockDim.x)

// Whether a block can have a thread for every pack of a row, so that nothing is read twice.
static bool one_pack(int64_t packs) { return packs <= MOST_BLOCK; }
static unsigned threads_of(int64_t packs) {
    return one_pack(packs) ? static_cast<unsigned>(pieces(packs, WARP) * WARP) : BLOCK;
}

// ONE: a thread has one pack at most, and keeps it. Else it reads back only what it wrote itself, so that
// `sum` may be `x`.
template <typename E, int N, bool ONE>
static __global__ void __launch_bounds__(ONE ? MOST_BLOCK : BLOCK)
    norm_kernel(E *y, float *rstd, E *sum, const E *x, const E *delta, const E *w, int64_t T, int64_t packs,
                float eps) {
    const E *source = delta ? sum : x;
    EACH_BLOCK_ROW(t, T) {
        int64_t row = t * packs * N;
        float squares = 0, s[N], weight[N];
        EACH_PACK(p, packs) {
            float more[N];
            load<N>(s, x + row + p * N);
            if (ONE) load<N>(weight, w + p * N);
            if (delta) {
                load<N>(more, delta + row + p * N);
#pragma unroll
                for (int i = 0; i < N; i++) s[i] = rounded<E>(s[i] + more[i]);
                store<N>(sum + row + p * N, s);
            }
#pragma unroll
            for (int i = 0; i < N; i++) squares += s[i] * s[i];
        }
        squares = block_reduce(squares, plus());
        float r = 1.0f / sqrtf(squares / static_cast<float>(packs * N) + eps);
        if (threadIdx.x == 0) rstd[t] = r;
        EACH_PACK(p, packs) {
            if (!ONE) load<N>(s, source + row + p * N), load<N>(weight, w + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) s[i] = rounded<E>(s[i] * r) * weight[i];
            store<N>(y + row + p * N, s);
        }
    }
}

void cuda_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                  const void *w, int64_t T, int64_t h, float eps) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0 || h <= 0) return;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        bool wide = aligned(16, y, sum, x, delta, w) && h % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            auto kernel = one_pack(h / N) ? norm_kernel<E, N, true> : norm_kernel<E, N, false>;
            launch(c, "rmsnorm", kernel, dim3(many(T, INT32_MAX)), dim3(threads_of(h / N)), 0, (E *)y, rstd,
                   (E *)sum, (const E *)x, (const E *)delta, (const E *)w, T, h / N, eps);
        });
    });
}

// ---- backward
//   dx = (residual or 0) + rstd (w dy - x along), along = rstd^2 mean(w dy x)
//   dw += sum of dy round(x rstd) over the rows, by chunks of them, and over the chunks in order

// A block does a chunk of rows, a thread one pack of each: dx, and its own sum of dw. The next row comes
// while this one is summed.
template <typename E, int N>
static __global__ void __launch_bounds__(MOST_BLOCK)
    norm_grad_chunk_kernel(E *dx, const E *residual, const E *dy, const E *x, const E *w, const float *rstd,
                           float *partial, int64_t T, int64_t packs) {
    const int64_t first = T * blockIdx.x / gridDim.x, p = threadIdx.x;
    int left = static_cast<int>(T * (blockIdx.x + 1) / gridDim.x - first); // rows
    int64_t at = (first * packs + p) * N;
    const bool mine = p < packs;
    const float share = 1.0f / static_cast<float>(packs * N);
    packed<N, E> next_g = {}, next_s = {}, weights = {}, before = {};
    float dw[N] = {}, next_r = left > 0 ? *(rstd += first) : 0;
    if (mine) weights.load_from(w + p * N);
    if (mine && left > 0) next_g.load_from(dy + at), next_s.load_from(x + at);
    for (; left > 0; left--, at += packs * N) {
        float g[N], s[N], weight[N], to[N], inner = 0, r = next_r;
        next_g.unpack(g), next_s.unpack(s), weights.unpack(weight);
        if (left > 1) next_r = *++rstd;
        if (mine && left > 1) next_g.load_from(dy + at + packs * N), next_s.load_from(x + at + packs * N);
        if (mine && residual) before.load_from(residual + at);
#pragma unroll
        for (int i = 0; i < N; i++) inner += g[i] * s[i] * weight[i];
        float along = block_reduce(inner, plus()) * r * r * share;
        before.unpack(to);
#pragma unroll
        for (int i = 0; i < N; i++) {
            dw[i] += g[i] * rounded<E>(s[i] * r);
            to[i] += r * (weight[i] * g[i] - s[i] * along);
        }
        if (mine) store<N>(dx + at, to);
    }
    if (mine) store<N>(partial + (blockIdx.x * packs + p) * N, dw);
}

// Rows with more packs: dw first, because dx may be the residual.

// Each chunk of rows (blockIdx.y) sums its own dw, one column a thread.
template <typename E, int N>
static __global__ void norm_weight_kernel(float *partial, const E *dy, const E *x, const float *rstd,
                                          int64_t T, int64_t packs) {
    int64_t end = T * (blockIdx.y + 1) / gridDim.y;
    EACH_COLUMN(p, packs) {
        float sum[N] = {};
        for (int64_t t = T * blockIdx.y / gridDim.y; t < end; t++) {
            float g[N], s[N], r = rstd[t];
            load<N>(g, dy + (t * packs + p) * N);
            load<N>(s, x + (t * packs + p) * N);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += g[i] * rounded<E>(s[i] * r);
        }
        store<N>(partial + (blockIdx.y * packs + p) * N, sum);
    }
}

// dw += the sums of the chunks, in order.
template <typename G>
static __global__ void add_chunks_kernel(G *dw, const float *partial, int64_t chunks, int64_t h) {
    EACH_COLUMN(j, h) {
        float sum = to_float(dw[j]);
        for (int64_t k = 0; k < chunks; k++) sum += partial[k * h + j];
        dw[j] = from_float<G>(sum);
    }
}

template <typename E, int N>
static __global__ void norm_grad_kernel(E *dx, const E *residual, const E *dy, const E *x, const E *w,
                                        const float *rstd, int64_t T, int64_t packs) {
    EACH_BLOCK_ROW(t, T) {
        int64_t row = t * packs * N;
        float inner = 0, r = rstd[t];
        EACH_PACK(p, packs) {
            float g[N], s[N], weight[N];
            load<N>(g, dy + row + p * N);
            load<N>(s, x + row + p * N);
            load<N>(weight, w + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) inner += g[i] * s[i] * weight[i];
        }
        float along = block_reduce(inner, plus()) * r * r / static_cast<float>(packs * N);
        EACH_PACK(p, packs) {
            float g[N], s[N], weight[N], to[N] = {};
            load<N>(g, dy + row + p * N);
            load<N>(s, x + row + p * N);
            load<N>(weight, w + p * N);
            if (residual) load<N>(to, residual + row + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) to[i] += r * (weight[i] * g[i] - s[i] * along);
            store<N>(dx + row + p * N, to);
        }
    }
}

void cuda_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                       const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                       int64_t T, int64_t h) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0 || h <= 0) return;
    int64_t chunks = ops_norm_partial(T, 1);
    plane columns(1, h);
    with_types(dt, gdt, [&](auto element, auto gradient) {
        using E = decltype(element);
        using G = decltype(gradient);
        bool wide = aligned(16, dx, residual, dy, x, w, partial) && h % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            if (one_pack(h / N)) {
                launch(c, "rmsnorm_grad", norm_grad_chunk_kernel<E, N>, dim3(static_cast<unsigned>(chunks)),
                       dim3(threads_of(h / N)), 0, (E *)dx, (const E *)residual, (const E *)dy, (const E *)x,
                       (const E *)w, rstd, partial, T, h / N);
            } else {
                plane parts(chunks, h / N);
                launch(c, "rmsnorm_grad", norm_weight_kernel<E, N>, parts.grid, parts.block, 0, partial,
                       (const E *)dy, (const E *)x, rstd, T, h / N);
                launch(c, "rmsnorm_grad", norm_grad_kernel<E, N>, dim3(many(T, INT32_MAX)), dim3(BLOCK), 0,
                       (E *)dx, (const E *)residual, (const E *)dy, (const E *)x, (const E *)w, rstd, T,
                       h / N);
            }
            launch(c, "rmsnorm_grad", add_chunks_kernel<G>, columns.grid, columns.block, 0, (G *)dw, partial,
                   chunks, h);
        });
    });
}
