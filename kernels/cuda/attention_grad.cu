// Causal attention, backward (Dao et al. 2022): scores are computed again tile by tile, by two kernels. In
// the one a block owns queries and meets keys, in the other it owns keys and meets the queries of every head
// of its group, in order: no two blocks add to one element.
//   P = exp(scale q k^T - lse), delta = rowsum(d_out * out)
//   dv = P^T d_out,  dS = P * (d_out v^T - delta) * scale,  dq = dS k,  dk = dS^T q
#include "attention.cuh"

// ---- delta: one warp for every head of every row

template <typename E, int N> static __global__ void delta_kernel(attention a) {
    int64_t count = a.batch * a.rows * a.heads, lane = threadIdx.x % WARP;
    int64_t warps = static_cast<int64_t>(gridDim.x) * (BLOCK / WARP);
    for (int64_t at = static_cast<int64_t>(blockIdx.x) * (BLOCK / WARP) + threadIdx.x / WARP; at < count;
         at += warps) {
        int64_t h = at % a.heads, row = at / a.heads, b = row / a.rows;
        const E *out = static_cast<const E *>(a.out) + row * a.ld_out + h * a.head_dim;
        const E *grad = static_cast<const E *>(a.d_out) + row * a.ld_out + h * a.head_dim;
        float sum = 0;
        for (int64_t d = lane * N; d < a.head_dim; d += WARP * N) {
            float x[N], y[N];
            load<N>(x, out + d), load<N>(y, grad + d);
#pragma unroll
            for (int i = 0; i < N; i++) sum += x[i] * y[i];
        }
        sum = warp_reduce(sum, plus());
        if (lane == 0) a.delta[statistics_of(a, b, h) + row % a.rows] = sum;
    }
}

// ---- what a query needs to know of itself

struct query {
    int at, first; // its row, and its first key
    float lse, delta;
};

// Query i of head h; past the end one that no key meets.
__device__ static query query_at(const attention &a, int64_t b, int64_t h, int i) {
    if (i >= a.rows) return {i, NEVER, 0, 0};
    int64_t at = statistics_of(a, b, h) + i;
    return {i, first_key(a, b, i), a.lse[at], a.delta[at]};
}

// Weight of a query on a key, and the gradient of its score; `product` is d_out v^T. A pair that does not
// meet has neither, whatever its score is.
struct pair {
    float p, ds;
};

__device__ static pair pair_of(const query &q, int key, float score, float product, float scale) {
    if (key < q.first || key > q.at) return {0, 0};
    float p = expf(score * scale - q.lse);
    return {p, p * (product - q.delta) * scale};
}

// ---- dq

template <typename E, int D>
static __global__ void __launch_bounds__(SQUARE, 1) query_grad_kernel(attention a, int blocks, bool wide) {
    using S = shape<D>;
    extern __shared__ float4 memory[];
    float *q = reinterpret_cast<float *>(memory), *d_out = q + S::OWN, *k = d_out + S::OWN, *v = k + S::OTHER;
    float *ds = v + S::OTHER;
    int64_t head = blockIdx.x % (a.batch * a.heads), b = head / a.heads, h = head % a.heads;
    int q0 = (blocks - 1 - static_cast<int>(blockIdx.x / (a.batch * a.heads))) * S::ROWS;
    int count = min(S::ROWS, static_cast<int>(a.rows) - q0), dim = static_cast<int>(a.head_dim);
    const E *keys = head_of<const E>(a, a.k, a.ld, b, h / group_of(a));
    const E *values = head_of<const E>(a, a.v, a.ld, b, h / group_of(a));
    gathered<D> dq = {};
    query mine[S::R];
    int first = NEVER, end = q0 + count;
    for (int r = 0; r < count; r++) first = min(first, first_key(a, b, q0 + r));
#pragma unroll
    for (int i = 0; i < S::R; i++) mine[i] = query_at(a, b, h, q0 + ty() * S::R + i);
    load_rows<E, D, S::ROWS>(q, head_of<const E>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, dim, count, wide);
    load_rows<E, D, S::ROWS>(d_out, head_of<const E>(a, a.d_out, a.ld_out, b, h) + q0 * a.ld_out, a.ld_out,
                             dim, count, wide);
    for (int k0 = first; k0 < end; k0 += COLS) {
        float s[S::R][C], g[S::R][C];
        int n = min(COLS, end - k0);
        load_rows<E, D, COLS>(k, keys + k0 * a.ld, a.ld, dim, n, wide);
        load_rows<E, D, COLS>(v, values + k0 * a.ld, a.ld, dim, n, wide);
        __syncthreads();
        dots<D>(s, q, k);
        dots<D>(g, d_out, v);
#pragma unroll
        for (int i = 0; i < S::R; i++)
#pragma unroll
            for (int j = 0; j < C; j++) {
                int column = tx() + j * SIDE;
                ds[(ty() * S::R + i) * P_STRIDE + column] =
                    pair_of(mine[i], k0 + column, s[i][j], g[i][j], a.scale).ds;
            }
        __syncwarp();
        mix(dq, ds, k);
        __syncthreads(); // the tiles are free for the next keys
    }
    write_rows(dq, head_of<E>(a, a.dq, a.ld, b, h) + q0 * a.ld, a.ld, dim, count, wide);
}

// ---- dk and dv

// One block of keys: its tiles, and what it gathers.
template <int D> struct key_block {
    float *k, *v, *q, *d_out, *p, *ds; // shared
    query *queries;                    // [COLS] shared
    int k0, count, dim;
    bool wide;
    gathered<D> dk, dv;
};

// Adds the part of COLS queries of head h. They are loaded only if one of them meets a key of the block.
template <typename E, int D>
__device__ static void meet_queries(key_block<D> &w, const attention &a, int64_t b, int64_t h, int q0) {
    using S = shape<D>;
    bool meets = false;
    if (threadIdx.x < COLS) {
        query one = query_at(a, b, h, q0 + static_cast<int>(threadIdx.x));
        w.queries[threadIdx.x] = one;
        meets = one.first < w.k0 + w.count;
    }
    if (!__syncthreads_or(meets)) return;
    int n = min(COLS, static_cast<int>(a.rows) - q0);
    load_rows<E, D, COLS>(w.q, head_of<const E>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, w.dim, n, w.wide);
    load_rows<E, D, COLS>(w.d_out, head_of<const E>(a, a.d_out, a.ld_out, b, h) + q0 * a.ld_out, a.ld_out,
                          w.dim, n, w.wide);
    __syncthreads();
    float s[S::R][C], g[S::R][C];
    dots<D>(s, w.k, w.q);
    dots<D>(g, w.v, w.d_out);
#pragma unroll
    for (int i = 0; i < S::R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) {
            int r = ty() * S::R + i, column = tx() + j * SIDE;
            pair one = pair_of(w.queries[column], w.k0 + r, s[i][j], g[i][j], a.scale);
            w.p[r * P_STRIDE + column] = one.p;
            w.ds[r * P_STRIDE + column] = one.ds;
        }
    __syncwarp();
    mix(w.dv, w.p, w.d_out);
    mix(w.dk, w.ds, w.q);
    __syncthreads(); // the tiles are free for the next queries
}

template <typename E, int D>
static __global__ void __launch_bounds__(SQUARE, 1) key_grad_kernel(attention a, bool wide) {
    using S = shape<D>;
    extern __shared__ float4 memory[];
    int64_t head = blockIdx.x % (a.batch * a.kv_heads), b = head / a.kv_heads, kv = head % a.kv_heads;
    key_block<D> w = {};
    w.k = reinterpret_cast<float *>(memory), w.v = w.k + S::OWN, w.q = w.v + S::OWN, w.d_out = w.q + S::OTHER;
    w.p = w.d_out + S::OTHER, w.ds = w.p + S::P, w.queries = reinterpret_cast<query *>(w.ds + S::P);
    w.k0 = static_cast<int>(blockIdx.x / (a.batch * a.kv_heads)) * S::ROWS;
    w.count = min(S::ROWS, static_cast<int>(a.rows) - w.k0);
    w.dim = static_cast<int>(a.head_dim), w.wide = wide;
    load_rows<E, D, S::ROWS>(w.k, head_of<const E>(a, a.k, a.ld, b, kv) + w.k0 * a.ld, a.ld, w.dim, w.count,
                             wide);
    load_rows<E, D, S::ROWS>(w.v, head_of<const E>(a, a.v, a.ld, b, kv) + w.k0 * a.ld, a.ld, w.dim, w.count,
                             wide);
    int64_t last = a.window > 0 ? w.k0 + w.count - 1 + a.window : a.rows;
    int end = static_cast<int>(last < a.rows ? last : a.rows), group = group_of(a);
    for (int g = 0; g < group; g++)
        for (int q0 = w.k0; q0 < end; q0 += COLS) meet_queries<E>(w, a, b, kv * group + g, q0);
    write_rows(w.dk, head_of<E>(a, a.dk, a.ld, b, kv) + w.k0 * a.ld, a.ld, w.dim, w.count, wide);
    write_rows(w.dv, head_of<E>(a, a.dv, a.ld, b, kv) + w.k0 * a.ld, a.ld, w.dim, w.count, wide);
}

template <typename E, int D> static void launch_grad(cuda_device *c, const attention *a, bool wide) {
    using S = shape<D>;
    int64_t blocks = pieces(a->rows, S::ROWS), heads = a->batch * a->heads;
    size_t shared = (2 * S::OWN + 2 * S::OTHER + S::P) * sizeof(float);
    launch(c, "attention_grad", query_grad_kernel<E, D>, dim3((unsigned)(blocks * heads)), dim3(SQUARE),
           shared, *a, (int)blocks, wide);
    launch(c, "attention_grad", key_grad_kernel<E, D>, dim3((unsigned)(blocks * a->batch * a->kv_heads)),
           dim3(SQUARE), shared + S::P * sizeof(float) + COLS * sizeof(query), *a, wide);
}

void cuda_attention_grad(device *d, const attention *a) {
    cuda_device *c = cuda_enter(d);
    if (a->batch <= 0 || a->rows <= 0 || a->heads <= 0 || a->head_dim <= 0) return;
    with_type(a->dt, [&](auto element) {
        using E = decltype(element);
        bool wide = aligned(16, a->q, a->k, a->v, a->d_out, a->dq, a->dk, a->dv) && wide_rows<E>(a, a->ld) &&
                    wide_rows<E>(a, a->ld_out);
        // the least rows of a block bound the number of blocks of every kernel
        int64_t heads = a->batch * a->heads, least = shape<MOST_DIM>::ROWS;
        if (!attention_fits(c, a, pieces(a->rows, least) * heads)) return;
        with_width<E>(wide && aligned(16, a->out), [&](auto width) {
            constexpr int N = decltype(width)::value;
            launch(c, "attention_grad", delta_kernel<E, N>,
                   dim3(many(pieces(heads * a->rows, BLOCK / WARP), INT32_MAX)), dim3(BLOCK), 0, *a);
        });
        if (on_tensor_cores(a)) return tensor_attention_grad(c, a);
        with_dim(a->head_dim, [&](auto width) { launch_grad<E, decltype(width)::value>(c, a, wide); });
    });
}
