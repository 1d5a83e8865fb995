// Causal attention of bf16 on the tensor cores, forward. The method is that of attention.cu; weights are
// rounded to bf16 before they meet the values, their sums are of what they were before. Sources: Dao 2023
// (FlashAttention-2) for the order of the work.
#include "attention_tensor.cuh"

template <int D> using forward_shape = block_shape<4, 2, 64>;

// What a lane knows of its rows: the greatest scaled score so far in powers of 2, its share of the sum of the
// weights relative to it, and its shares of the weighted values.
template <int D, int M> struct running {
    float most[M][2], sum[M][2];
    float out[M][D / 8][4];
};

// Turns scores into weights, and what was gathered is brought to the new maximum. Scores of keys that a query
// does not see, whatever they are, become -inf if MASKED; `first`: of this lane's first row on, `key`: of its
// first column. A NaN is passed over by the maximum, but not by the sum.
template <bool MASKED, int D, int M, int N>
__device__ static void weigh(running<D, M> &w, float (&s)[M][N][4], const int *first, int query, int key,
                             float scale) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int i = query + m * PIECE + half * 8, oldest = MASKED ? first[m * PIECE + half * 8] : 0;
            float most = -INFINITY, sum = 0;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    int j = key + n * 8 + e % 2;
                    if (MASKED && (j < oldest || j > i)) s[m][n][e] = -INFINITY;
                    most = fmaxf(most, s[m][n][e]);
                }
            most = fmaxf(w.most[m][half], across_row(most, larger()) * scale);
            float base = most == -INFINITY ? 0 : most, keep = power_of_2(w.most[m][half] - base);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[m][n][e] = power_of_2(s[m][n][e] * scale - base);
                    sum += s[m][n][e];
                }
            w.sum[m][half] = w.sum[m][half] * keep + sum;
            w.most[m][half] = most;
#pragma unroll
            for (int n = 0; n < D / 8; n++) w.out[m][n][2 * half] *= keep, w.out[m][n][2 * half + 1] *= keep;
        }
}

template <int D, int M>
__device__ static void finish(const attention &a, running<D, M> &w, int b, int h, int q0, int count,
                              uint32_t tile) {
    float *lse = a.lse + statistics_of(a, b, h) + q0;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = (warp() * M + m) * PIECE + half * 8 + lane() / 4;
            float sum = across_row(w.sum[m][half], plus()), by = 1.0f / sum;
            if (lane() % 4 == 0 && r < count) lse[r] = w.most[m][half] * LN_2 + logf(sum);
#pragma unroll
            for (int n = 0; n < D / 8; n++) w.out[m][n][2 * half] *= by, w.out[m][n][2 * half + 1] *= by;
        }
    write_shares<D, M>(w.out, 1, tile, head_of<bf16>(a, a.out, a.ld_out, b, h) + q0 * a.ld_out, a.ld_out,
                       count);
}

// Late blocks see the most keys: they go first. While keys are multiplied the values come, and while weights
// are made and values multiplied the next keys.
template <int D>
static __global__ void __launch_bounds__(forward_shape<D>::THREADS, 2) tensor_forward_kernel(attention a) {
    using S = forward_shape<D>;
    extern __shared__ __align__(128) float4 memory[];
    const uint32_t q = shared_address(memory), k = q + TILE_BYTES<D, S::ROWS>,
                   v = k + TILE_BYTES<D, S::OTHER>;
    const int b = static_cast<int>(blockIdx.z), h = static_cast<int>(blockIdx.x), kv = h / group_of(a);
    int block = static_cast<int>(gridDim.y - 1 - blockIdx.y) * S::ROWS;
    int count = min(S::ROWS, static_cast<int>(a.q_rows) - block);
    int q0 = static_cast<int>(a.q_start) + block, end = q0 + count;
    auto fetch = [&](uint32_t to, const void *from, int k0) {
        fetch_rows<D, S::OTHER, S::THREADS>(to, head_of<const bf16>(a, from, a.ld, b, kv) + k0 * a.ld, a.ld,
                                            end - k0);
    };
    const int row = warp() * S::M * PIECE, mine = q0 + row + lane() / 4;
    __shared__ int first[S::ROWS];
    int2 seen = first_keys<S::THREADS, S::ROWS>(first, a, b, q0, count);
    running<D, S::M> w = {};
#pragma unroll
    for (int i = 0; i < 2 * S::M; i++) w.most[i / 2][i % 2] = -INFINITY;
    fetch_rows<D, S::ROWS, S::THREADS>(q, head_of<const bf16>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, count);
    fetch(k, a.k, seen.x);
    copies_commit();
    for (int k0 = seen.x; k0 < end; k0 += S::OTHER) {
        float s[S::M][S::N][4];
        bool meets = k0 < q0 + row + S::M * PIECE; // some row of this warp
        copies_wait<0>();
        __syncthreads(); // the keys are there, and the last values not needed any more
        fetch(v, a.v, k0);
        copies_commit();
        if (meets) row_products<D>(s, q, row, k);
        copies_wait<0>();
        __syncthreads(); // the values are there, and the keys not needed any more
        if (k0 + S::OTHER < end) fetch(k, a.k, k0 + S::OTHER);
        copies_commit();
        if (!meets) continue;
        if (k0 >= seen.y && k0 + S::OTHER <= q0 + row + 1)
            weigh<false>(w, s, first + row + lane() / 4, mine, k0 + lane() % 4 * 2, a.scale * LOG2_E);
        else
            weigh<true>(w, s, first + row + lane() / 4, mine, k0 + lane() % 4 * 2, a.scale * LOG2_E);
        mix_rows<D>(w.out, s, v);
    }
    finish(a, w, b, h, q0, count, q);
}

template <int D> static void launch_forward(cuda_device *c, const attention *a) {
    using S = forward_shape<D>;
    launch(c, "attention", tensor_forward_kernel<D>,
           head_grid(a->heads, pieces(a->q_rows, S::ROWS), a->batch), dim3(S::THREADS),
           TILE_BYTES<D, S::ROWS + 2 * S::OTHER>, *a);
}

void tensor_attention(cuda_device *c, const attention *a) {
    if (a->head_dim == 64)
        launch_forward<64>(c, a);
    else
        launch_forward<128>(c, a);
}
