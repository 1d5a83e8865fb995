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

// One thread owns one column of every GROUPS-th row of the table, and meets the tokens in order: no two
// threads add to one element, and its sum has the order of the tokens.
constexpr int GROUPS = 32;

template <typename E>
static __global__ void embed_grad_kernel(float *dtable, const E *dy, const int32_t *tokens, int64_t T,
                                         int64_t h, int64_t first, int64_t rows) {
    EACH_COLUMN(j, h)
    for (int64_t t = 0; t < T; t++) {
        int64_t row = tokens[t] - first;
        if (row < 0 || row >= rows || row % GROUPS != blockIdx.y) continue;
        dtable[row * h + j] += to_float(dy[t * h + j]);
    }
}

void cuda_embed_grad(device *d, dtype dt, float *dtable, const void *dy, const int32_t *tokens, int64_t T,
                     int64_t h, int64_t first, int64_t rows) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0) return;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        plane at(GROUPS, h);
        launch(c, "embed_grad", embed_grad_kernel<E>, at.grid, at.block, 0, dtable, (const E *)dy, tokens, T,
               h, first, rows);
    });
}
