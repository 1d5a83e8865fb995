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

// A block owns a strip of columns of every GROUPS-th row of the table. It meets the tokens in order, as many
// at once as it has threads, of which it lists its own; a thread adds its columns of each. No two threads add
// to one element, and its sum has the order of the tokens.
constexpr int GROUPS = 128;

struct listed {
    int row, token;
};

// Lists in order the `own` ones; returns how many. All threads must call.
__device__ static int list_own(listed *list, bool own, listed mine) {
    __shared__ int counts[BLOCK / WARP];
    const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
    const unsigned votes = __ballot_sync(ALL_LANES, own);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int place = __popc(votes & ((1u << lane) - 1)), total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / WARP; w++) {
        if (w < warp) place += counts[w];
        total += counts[w];
    }
    if (own) list[place] = mine;
    __syncthreads();
    return total;
}

template <typename E, int N>
static __global__ void embed_grad_kernel(float *dtable, const E *dy, const int32_t *tokens, int64_t T,
                                         int64_t packs, int64_t first, int64_t rows) {
    __shared__ listed list[BLOCK];
    const int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (int64_t base = 0; base < T; base += blockDim.x) {
        int64_t t = base + threadIdx.x, row = t < T ? tokens[t] - first : -1;
        bool own = row >= 0 && row < rows && row % GROUPS == blockIdx.y;
        int count = list_own(list, own, {static_cast<int>(row), static_cast<int>(threadIdx.x)});
        for (int i = 0; i < count && p < packs; i++) {
            float sum[N], more[N], *to = dtable + (list[i].row * packs + p) * N;
            load<N>(sum, to), load<N>(more, dy + ((base + list[i].token) * packs + p) * N);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += more[j];
            store<N>(to, sum);
        }
        __syncthreads(); // the list is free
    }
}

void cuda_embed_grad(device *d, dtype dt, float *dtable, const void *dy, const int32_t *tokens, int64_t T,
                     int64_t h, int64_t first, int64_t rows) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0) return;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        with_width<float>(aligned(16, dtable, dy) && h % 4 == 0, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(GROUPS, h / N);
            launch(c, "embed_grad", embed_grad_kernel<E, N>, at.grid, at.block, 0, dtable, (const E *)dy,
                   tokens, T, h / N, first, rows);
        });
    });
}
