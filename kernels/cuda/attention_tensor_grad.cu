// Causal attention of bf16 on the tensor cores, backward. The method is that of attention_grad.cu: scores are
// computed again by two kernels, of which one owns queries and the other keys, so that every sum has one
// order. The factor `scale` of dS is left to the end.
#include "attention_tensor.cuh"

template <int D> using query_shape = block_shape<4, 2, D == 64 ? 64 : 32>;
template <int D> using key_shape = block_shape<4, D == 64 ? 2 : 1, D == 64 ? 32 : 64>;

// P and, in place of the product d_out v^T, dS / scale. `shift`: log2 of the sum of the weights.
__device__ static void pair_of(float &s, float &product, bool seen, float scale, float shift, float delta) {
    float p = power_of_2(s * scale - shift);
    s = seen ? p : 0;
    product = seen ? p * (product - delta) : 0;
}

// ---- dq

template <int M> struct query_rows { float shift[M][2], delta[M][2]; };

// What a lane's rows need to know of themselves, of which the first is query `mine`.
template <int M>
__device__ static void read_rows(query_rows<M> &w, const attention &a, int b, int h, int mine) {
    int64_t at = statistics_of(a, b, h) + mine;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        bool there = mine + i * 8 < a.rows;
        w.shift[i / 2][i % 2] = there ? a.lse[at + i * 8] * LOG2_E : 0;
        w.delta[i / 2][i % 2] = there ? a.delta[at + i * 8] : 0;
    }
}

template <bool MASKED, int M, int N>
__device__ static void query_pairs(float (&s)[M][N][4], float (&g)[M][N][4], const query_rows<M> &w,
                                   const int *first, int query, int key, float scale) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int half = e / 2, i = query + m * PIECE + half * 8, j = key + n * 8 + e % 2;
                pair_of(s[m][n][e], g[m][n][e], !MASKED || (j >= first[m * PIECE + half * 8] && j <= i),
                        scale, w.shift[m][half], w.delta[m][half]);
            }
}

template <int D>
static __global__ void __launch_bounds__(query_shape<D>::THREADS, 2) tensor_query_kernel(attention a) {
    using S = query_shape<D>;
    constexpr uint32_t OWN = TILE_BYTES<D, S::ROWS>, TILE = TILE_BYTES<D, S::OTHER>;
    extern __shared__ __align__(128) float4 memory[];
    const uint32_t q = shared_address(memory), d_out = q + OWN, tiles = d_out + OWN;
    const int b = static_cast<int>(blockIdx.z), h = static_cast<int>(blockIdx.x), kv = h / group_of(a);
    int q0 = static_cast<int>(gridDim.y - 1 - blockIdx.y) * S::ROWS;
    int count = min(S::ROWS, static_cast<int>(a.rows) - q0), end = q0 + count;
    const bf16 *keys = head_of<const bf16>(a, a.k, a.ld, b, kv);
    const bf16 *values = head_of<const bf16>(a, a.v, a.ld, b, kv);
    const int row = warp() * S::M * PIECE, mine = q0 + row + lane() / 4;
    __shared__ int first[S::ROWS];
    int2 seen = first_keys<S::THREADS, S::ROWS>(first, a, b, q0, count);
    query_rows<S::M> w;
    read_rows(w, a, b, h, mine);
    float dq[S::M][D / 8][4] = {};
    auto fetch = [&](int k0, uint32_t to) {
        fetch_rows<D, S::OTHER, S::THREADS>(to, keys + k0 * a.ld, a.ld, end - k0);
        fetch_rows<D, S::OTHER, S::THREADS>(to + TILE, values + k0 * a.ld, a.ld, end - k0);
    };
    fetch_rows<D, S::ROWS, S::THREADS>(q, head_of<const bf16>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, count);
    fetch_rows<D, S::ROWS, S::THREADS>(d_out, head_of<const bf16>(a, a.d_out, a.ld_out, b, h) + q0 * a.ld_out,
                                       a.ld_out, count);
    fetch(seen.x, tiles);
    copies_commit();
    uint32_t now = tiles, next = tiles + 2 * TILE;
    for (int k0 = seen.x; k0 < end; k0 += S::OTHER) {
        if (k0 + S::OTHER < end) fetch(k0 + S::OTHER, next);
        copies_commit();
        copies_wait<1>();
        __syncthreads(); // all but the next tile is there
        if (k0 < q0 + row + S::M * PIECE) {
            float s[S::M][S::N][4], g[S::M][S::N][4];
            row_products<D>(s, q, row, now);
            row_products<D>(g, d_out, row, now + TILE);
            if (k0 >= seen.y && k0 + S::OTHER <= q0 + row + 1)
                query_pairs<false>(s, g, w, first + row + lane() / 4, mine, k0 + lane() % 4 * 2,
                                   a.scale * LOG2_E);
            else
                query_pairs<true>(s, g, w, first + row + lane() / 4, mine, k0 + lane() % 4 * 2,
                                  a.scale * LOG2_E);
            mix_rows<D>(dq, g, now);
        }
        __syncthreads(); // the tile is free
        uint32_t done = now;
        now = next, next = done;
    }
    copies_wait<0>();
    write_shares<D, S::M>(dq, a.scale, q, head_of<bf16>(a, a.dq, a.ld, b, h) + q0 * a.ld, a.ld, count);
}

// ---- dk and dv

// What a tile holds of its queries, behind their rows.
template <int D> struct query_tile {
    using S = key_shape<D>;
    static constexpr uint32_t ROWS = TILE_BYTES<D, S::OTHER>, EACH = S::OTHER * 4,
                              BYTES = 2 * ROWS + 3 * EACH;
};

// Begins to copy the tile of queries q0 .. of head h.
template <int D> __device__ static void fetch_queries(uint32_t to, const attention &a, int b, int h, int q0) {
    using S = key_shape<D>;
    using T = query_tile<D>;
    int count = static_cast<int>(a.rows) - q0, i = static_cast<int>(threadIdx.x);
    fetch_rows<D, S::OTHER, S::THREADS>(to, head_of<const bf16>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, count);
    fetch_rows<D, S::OTHER, S::THREADS>(
        to + T::ROWS, head_of<const bf16>(a, a.d_out, a.ld_out, b, h) + q0 * a.ld_out, a.ld_out, count);
    if (i >= S::OTHER) return;
    bool there = i < count;
    int64_t at = q0 + (there ? i : 0), own = statistics_of(a, b, h) + at;
    uint32_t place = to + 2 * T::ROWS + static_cast<uint32_t>(i) * 4;
    copy_4(place, a.lse + own, there);
    copy_4(place + T::EACH, a.delta + own, there);
    if (a.start) copy_4(place + 2 * T::EACH, a.start + b * a.rows + at, there);
}

// As query_pairs, but rows are keys, the lane's first is `key`, and columns are queries from q0 on, of which
// `tile` holds the statistics.
template <bool MASKED, int M, int N>
__device__ static void key_pairs(float (&s)[M][N][4], float (&g)[M][N][4], const attention &a,
                                 const float *tile, int q0, int key) {
    constexpr int OTHER = N * 8;
    const float scale = a.scale * LOG2_E;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int u = 0; u < 2; u++) {
            int c = n * 8 + lane() % 4 * 2 + u, i = q0 + c, first = 0;
            float shift = tile[c] * LOG2_E, delta = tile[OTHER + c];
            if (MASKED && a.start) first = reinterpret_cast<const int *>(tile)[2 * OTHER + c];
            if (MASKED && a.window > 0) first = max(first, i - static_cast<int>(a.window) + 1);
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int j = key + m * PIECE + half * 8;
                    pair_of(s[m][n][2 * half + u], g[m][n][2 * half + u], !MASKED || (j >= first && j <= i),
                            scale, shift, delta);
                }
        }
}

// One past the last query that sees one of the keys k0 .. last, in all threads.
template <int THREADS> __device__ static int end_of_queries(const attention &a, int b, int k0, int last) {
    int rows = static_cast<int>(a.rows), end = k0 + 1;
    if (a.window > 0 && last + a.window < rows) rows = last + static_cast<int>(a.window);
    if (!a.start) return rows;
    for (int i = k0 + static_cast<int>(threadIdx.x); i < rows; i += THREADS)
        if (first_key(a, b, i) <= last) end = i + 1;
    return block_reduce(end, greater());
}

template <int D>
static __global__ void __launch_bounds__(key_shape<D>::THREADS, 2) tensor_key_kernel(attention a) {
    using S = key_shape<D>;
    using T = query_tile<D>;
    constexpr uint32_t OWN = TILE_BYTES<D, S::ROWS>;
    extern __shared__ __align__(128) float4 memory[];
    const uint32_t k = shared_address(memory), v = k + OWN, tiles = v + OWN;
    const int b = static_cast<int>(blockIdx.z), kv = static_cast<int>(blockIdx.x), group = group_of(a);
    const int k0 = static_cast<int>(blockIdx.y) * S::ROWS;
    int count = min(S::ROWS, static_cast<int>(a.rows) - k0);
    const int row = warp() * S::M * PIECE, mine = k0 + row + lane() / 4;
    int end = end_of_queries<S::THREADS>(a, b, k0, k0 + count - 1), q0 = k0;
    float dk[S::M][D / 8][4] = {}, dv[S::M][D / 8][4] = {};
    fetch_rows<D, S::ROWS, S::THREADS>(k, head_of<const bf16>(a, a.k, a.ld, b, kv) + k0 * a.ld, a.ld, count);
    fetch_rows<D, S::ROWS, S::THREADS>(v, head_of<const bf16>(a, a.v, a.ld, b, kv) + k0 * a.ld, a.ld, count);
    fetch_queries<D>(tiles, a, b, kv * group, q0);
    copies_commit();
    uint32_t now = 0;
    for (int g = 0; g < group; now ^= 1) {
        int at = q0;
        q0 += S::OTHER;
        if (q0 >= end) q0 = k0, g++; // on to the next head
        if (g < group) fetch_queries<D>(tiles + (now ^ 1) * T::BYTES, a, b, kv * group + g, q0);
        copies_commit();
        copies_wait<1>();
        __syncthreads(); // all but the next tile is there
        if (at + S::OTHER > k0 + row) {
            const uint32_t tile = tiles + now * T::BYTES;
            const float *statistics = reinterpret_cast<const float *>(reinterpret_cast<const char *>(memory) +
                                                                      2 * OWN + now * T::BYTES + 2 * T::ROWS);
            float s[S::M][S::N][4], p[S::M][S::N][4];
            row_products<D>(s, k, row, tile);
            row_products<D>(p, v, row, tile + T::ROWS);
            bool open = at >= k0 + row + S::M * PIECE - 1 && !a.start &&
                        (a.window <= 0 || at + S::OTHER - a.window <= k0 + row);
            if (open)
                key_pairs<false>(s, p, a, statistics, at, mine);
            else
                key_pairs<true>(s, p, a, statistics, at, mine);
            mix_rows<D>(dv, s, tile + T::ROWS);
            mix_rows<D>(dk, p, tile);
        }
        __syncthreads(); // the tile is free
    }
    copies_wait<0>();
    write_shares<D, S::M>(dk, a.scale, k, head_of<bf16>(a, a.dk, a.ld, b, kv) + k0 * a.ld, a.ld, count);
    write_shares<D, S::M>(dv, 1, v, head_of<bf16>(a, a.dv, a.ld, b, kv) + k0 * a.ld, a.ld, count);
}

template <int D> static void launch_grad(cuda_device *c, const attention *a) {
    using Q = query_shape<D>;
    using K = key_shape<D>;
    launch(c, "attention_grad", tensor_query_kernel<D>,
           head_grid(a->heads, pieces(a->rows, Q::ROWS), a->batch), dim3(Q::THREADS),
           TILE_BYTES<D, 2 * Q::ROWS + 4 * Q::OTHER>, *a);
    launch(c, "attention_grad", tensor_key_kernel<D>,
           head_grid(a->kv_heads, pieces(a->rows, K::ROWS), a->batch), dim3(K::THREADS),
           TILE_BYTES<D, 2 * K::ROWS> + 2 * query_tile<D>::BYTES, *a);
}

void tensor_attention_grad(cuda_device *c, const attention *a) {
    if (a->head_dim == 64)
        launch_grad<64>(c, a);
    else
        launch_grad<128>(c, a);
}
