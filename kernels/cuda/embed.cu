// Token embedding.
#include "common.cuh"

template <typename E, int N>
static __global__ void embed_kernel(E *y, const E *table, const int32_t *tokens, int64_t T, int64_t packs,
                                    int64_t first, int64_t rows) {
    EACH_ROW(t, T) {
        int64_t row = tokens[t] - first;
        bool here = row >= 0 && row < rows;
        EACH_COLUMN(p, packs) {
            float v[N] = {};
            if (here) load<N>(v, table + (row * packs + p) * N);
            store<N>(y + (t * packs + p) * N, v);
        }
    }
}

void cuda_embed(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T, int64_t h,
                int64_t first, int64_t rows) {
    cuda_device *c = cuda_enter(d);
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        bool wide = aligned(16, y, table) && h % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, h / N);
            launch(c, "embed", embed_kernel<E, N>, at.grid, at.block, 0, (E *)y, (const E *)table, tokens, T,
                   h / N, first, rows);
        });
    });
}

// ---- backward: the rows of a token are added by one thread for every pack of columns, in order

struct smaller {
    __device__ int32_t operator()(int32_t a, int32_t b) const { return a < b ? a : b; }
};

// chain[t] is the next row of the same token, or T; its complement where t is not the token's first row. A
// block looks for one row's neighbours.
static __global__ void chain_kernel(int32_t *chain, const int32_t *tokens, int32_t T) {
    for (int32_t t = static_cast<int32_t>(blockIdx.x); t < T; t += static_cast<int32_t>(gridDim.x)) {
        int32_t next = T, first = t, mine = tokens[t];
        for (int32_t i = static_cast<int32_t>(threadIdx.x); i < T; i += static_cast<int32_t>(blockDim.x)) {
            if (tokens[i] != mine) continue;
            if (i < first) first = i;
            if (i > t && i < next) next = i;
        }
        next = block_reduce(next, smaller());
        first = block_reduce(first, smaller());
        if (threadIdx.x == 0) chain[t] = first == t ? next : ~next;
    }
}

template <typename E, typename G, int N>
static __global__ void embed_grad_kernel(G *dtable, const E *dy, const int32_t *tokens, const int32_t *chain,
                                         int64_t T, int64_t packs, int64_t first, int64_t rows) {
    EACH_ROW(t, T) {
        int64_t row = tokens[t] - first;
        if (chain[t] < 0 || row < 0 || row >= rows) continue;
        EACH_COLUMN(p, packs) {
            G *to = dtable + (row * packs + p) * N;
            float sum[N], more[N];
            load<N>(sum, to);
            for (int64_t i = t; i < T; i = chain[i] < 0 ? ~chain[i] : chain[i]) {
                load<N>(more, dy + (i * packs + p) * N);
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += more[k];
            }
            store<N>(to, sum);
        }
    }
}

void cuda_embed_grad(device *d, dtype dt, dtype gdt, void *dtable, const void *dy, const int32_t *tokens,
                     int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0) return;
    launch(c, "embed_grad", chain_kernel, dim3(many(T, INT32_MAX)), dim3(row_threads(T)), 0, chain, tokens,
           static_cast<int32_t>(T));
    with_types(dt, gdt, [&](auto element, auto gradient) {
        using E = decltype(element);
        using G = decltype(gradient);
        bool wide = aligned(16, dtable, dy) && h % (int64_t)(16 / sizeof(E)) == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, h / N);
            launch(c, "embed_grad", embed_grad_kernel<E, G, N>, at.grid, at.block, 0, (G *)dtable,
                   (const E *)dy, tokens, chain, T, h / N, first, rows);
        });
    });
}
