// Ops that treat each element, or pair of elements, by itself.
#include "common.cuh"

// ---- rotary embedding: one thread turns N pairs, which lie half a head apart

template <typename E, int N>
static __global__ void rope_kernel(E *x, int64_t ld, const int32_t *pos, const float *cos, const float *sin,
                                   int64_t T, int64_t columns, int half, int head_dim, float sign) {
    EACH_COLUMN(c, columns) {
        int head = static_cast<int>(c * N / half), j = static_cast<int>(c * N % half);
        EACH_ROW(t, T) {
            E *x1 = x + t * ld + static_cast<int64_t>(head) * head_dim + j, *x2 = x1 + half;
            int64_t at = static_cast<int64_t>(pos[t]) * half + j;
            float a[N], b[N], co[N], si[N], u[N], v[N];
            load<N>(a, x1), load<N>(b, x2), load<N>(co, cos + at), load<N>(si, sin + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                u[i] = a[i] * co[i] - sign * b[i] * si[i];
                v[i] = b[i] * co[i] + sign * a[i] * si[i];
            }
            store<N>(x1, u), store<N>(x2, v);
        }
    }
}

void cuda_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
               const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse) {
    cuda_device *c = cuda_enter(d);
    int64_t half = head_dim / 2;
    if (half == 0) return;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        int64_t most = 16 / sizeof(E);
        bool wide = aligned(16, x, cos, sin) && ld % most == 0 && half % most == 0 && head_dim % most == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, heads * half / N);
            launch(c, "rope", rope_kernel<E, N>, at.grid, at.block, 0, (E *)x, ld, pos, cos, sin, T,
                   heads * half / N, (int)half, (int)head_dim, inverse ? -1.0f : 1.0f);
        });
    });
}

// ---- gated feed-forward

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename E, int N>
static __global__ void swiglu_kernel(E *y, const E *gu, int64_t T, int64_t packs) {
    EACH_ROW(t, T)
    EACH_COLUMN(p, packs) {
        const E *row = gu + t * 2 * packs * N + p * N;
        float g[N], u[N];
        load<N>(g, row), load<N>(u, row + packs * N);
#pragma unroll
        for (int i = 0; i < N; i++) u[i] *= g[i] * sigmoid(g[i]);
        store<N>(y + (t * packs + p) * N, u);
    }
}

template <typename E, int N>
static __global__ void swiglu_grad_kernel(E *dgu, const E *dy, const E *gu, int64_t T, int64_t packs) {
    EACH_ROW(t, T)
    EACH_COLUMN(p, packs) {
        int64_t at = t * 2 * packs * N + p * N;
        float g[N], u[N], grad[N];
        load<N>(g, gu + at), load<N>(u, gu + at + packs * N), load<N>(grad, dy + (t * packs + p) * N);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float s = sigmoid(g[i]), up = u[i];
            u[i] = grad[i] * g[i] * s;
            g[i] = grad[i] * up * s * (1.0f + g[i] * (1.0f - s));
        }
        store<N>(dgu + at, g), store<N>(dgu + at + packs * N, u);
    }
}

void cuda_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f) {
    cuda_device *c = cuda_enter(d);
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        bool wide = aligned(16, y, gu) && f % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, f / N);
            launch(c, "swiglu", swiglu_kernel<E, N>, at.grid, at.block, 0, (E *)y, (const E *)gu, T, f / N);
        });
    });
}

void cuda_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T, int64_t f) {
    cuda_device *c = cuda_enter(d);
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        bool wide = aligned(16, dgu, dy, gu) && f % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, f / N);
            launch(c, "swiglu_grad", swiglu_grad_kernel<E, N>, at.grid, at.block, 0, (E *)dgu, (const E *)dy,
                   (const E *)gu, T, f / N);
        });
    });
}

// ---- long arrays. The last elements, fewer than a pack, are done one by one by the same threads.

template <typename E, int N> static __global__ void add_kernel(E *y, const E *x, int64_t n) {
    EACH_COLUMN(p, n / N) {
        float a[N], b[N];
        load<N>(a, y + p * N), load<N>(b, x + p * N);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] += b[i];
        store<N>(y + p * N, a);
    }
    EACH_COLUMN(i, n % N) {
        int64_t at = n - n % N + i;
        y[at] = from_float<E>(to_float(y[at]) + to_float(x[at]));
    }
}

void cuda_add(device *d, dtype dt, void *y, const void *x, int64_t n) {
    cuda_device *c = cuda_enter(d);
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        with_width<E>(aligned(16, y, x), [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(n > 0, pieces(n, N));
            launch(c, "add", add_kernel<E, N>, at.grid, at.block, 0, (E *)y, (const E *)x, n);
        });
    });
}

template <typename E, typename F, int N> static __global__ void cast_kernel(E *to, const F *from, int64_t n) {
    EACH_COLUMN(p, n / N) {
        float v[N];
        load<N>(v, from + p * N);
        store<N>(to + p * N, v);
    }
    EACH_COLUMN(i, n % N) {
        int64_t at = n - n % N + i;
        to[at] = from_float<E>(to_float(from[at]));
    }
}

void cuda_cast(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n) {
    cuda_device *c = cuda_enter(d);
    if (n <= 0) return;
    if (to == from) {
        d->ops->copy(d, dst, src, (size_t)n * dtype_size(to));
        return;
    }
    with_type(from, [&](auto element) {
        using F = decltype(element);
        using E = std::conditional_t<std::is_same_v<F, float>, bf16, float>;
        with_width<bf16>(aligned(16, dst, src), [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(1, pieces(n, N));
            launch(c, "cast", cast_kernel<E, F, N>, at.grid, at.block, 0, (E *)dst, (const F *)src, n);
        });
    });
}

template <typename E, typename F, int N>
static __global__ void sum_rows_kernel(F *out, const E *rows, int64_t ld, const E *own, int own_row,
                                       int count, int64_t n) {
    EACH_COLUMN(p, n / N) {
        float sum[N] = {}, v[N];
        for (int r = 0; r < count; r++) {
            load<N>(v, (r == own_row ? own : rows + r * ld) + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] = r == 0 ? v[i] : sum[i] + v[i];
        }
        store<N>(out + p * N, sum);
    }
    EACH_COLUMN(i, n % N) {
        int64_t at = n - n % N + i;
        float sum = 0;
        for (int r = 0; r < count; r++) {
            float x = to_float((r == own_row ? own : rows + r * ld)[at]);
            sum = r == 0 ? x : sum + x;
        }
        out[at] = from_float<F>(sum);
    }
}

void cuda_sum_rows(device *d, const row_sum *s) {
    cuda_device *c = cuda_enter(d);
    if (s->n <= 0) return;
    bool wide =
        aligned(16, s->rows, s->own, s->out) && static_cast<size_t>(s->ld) * dtype_size(s->dt) % 16 == 0;
    with_type(s->dt, [&](auto element) {
        using E = decltype(element);
        with_type(s->out_dt, [&](auto result) {
            using F = decltype(result);
            with_width<bf16>(wide, [&](auto width) { // 8 elements: 16 bytes, or twice that
                constexpr int N = decltype(width)::value;
                plane at(1, pieces(s->n, N));
                launch(c, "sum of rows", sum_rows_kernel<E, F, N>, at.grid, at.block, 0, (F *)s->out,
                       (const E *)s->rows, s->ld, (const E *)s->own, (int)s->own_row, (int)s->count, s->n);
            });
        });
    });
}

cudaError_t cuda_code_present(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, add_kernel<float, 1>);
}
