// Causal attention, forward: a block of queries against tiles of keys with a running maximum and sum, so that
// no score leaves the block. Source of the method: Milakov & Gimelshein 2018 (online softmax), Dao et al.
// 2022 (FlashAttention).
#include <climits>

#include "attention.cuh"

// The sum (or maximum) over the threads of a row of the square; all of them get it.
template <typename F> __device__ static float across(float v, F f) {
#pragma unroll
    for (int other = SIDE / 2; other > 0; other /= 2) v = f(v, __shfl_xor_sync(ALL_LANES, v, other));
    return v;
}

// What a thread knows of its rows: running maximum, sum of exp(score - maximum), and the weighted values.
template <int D> struct running {
    float most[shape<D>::R], sum[shape<D>::R];
    gathered<D> out;
};

template <int D> __device__ static void begin(running<D> &w) {
    w = {};
#pragma unroll
    for (int i = 0; i < shape<D>::R; i++) w.most[i] = -INFINITY;
}

// Turns the scores of row i into weights in p, and rescales what was gathered to the new maximum. `key`: of
// this thread's first column. A NaN score is passed over by the maximum, but not by the sum.
template <int D>
__device__ static void weigh_row(running<D> &w, int i, float (&s)[C], float *p, int first, int query, int key,
                                 float scale) {
    bool seen[C];
    float most = w.most[i], sum = 0;
#pragma unroll
    for (int j = 0; j < C; j++) {
        seen[j] = key + j * SIDE >= first && key + j * SIDE <= query;
        s[j] *= scale;
        if (seen[j]) most = fmaxf(most, s[j]);
    }
    most = across(most, larger());
    float keep = w.most[i] == most ? 1 : expf(w.most[i] - most); // 1 too while no key was seen
#pragma unroll
    for (int j = 0; j < C; j++) {
        float e = seen[j] ? expf(s[j] - most) : 0;
        p[j * SIDE] = e;
        sum += e;
    }
    w.sum[i] = w.sum[i] * keep + across(sum, plus());
    w.most[i] = most;
    multiply_row(w.out, i, keep);
}

// First keys of the queries of the block; rows past `count` see none. The smallest of them is where to begin.
template <int D>
__device__ static int first_keys(const attention &a, int64_t b, int q0, int count, int *first) {
    constexpr int ROWS = shape<D>::ROWS;
    if (threadIdx.x < ROWS) {
        int r = static_cast<int>(threadIdx.x);
        first[r] = r < count ? first_key(a, b, q0 + r) : NEVER;
    }
    __syncthreads();
    int least = NEVER;
    for (int r = 0; r < ROWS; r++) least = min(least, first[r]);
    return least;
}

template <typename E, int D>
__device__ static void finish(const attention &a, running<D> &w, int64_t b, int64_t h, int q0, int count,
                              bool wide) {
    float *lse = a.lse + statistics_of(a, b, h);
#pragma unroll
    for (int i = 0; i < shape<D>::R; i++) {
        int r = ty() * shape<D>::R + i;
        multiply_row(w.out, i, 1.0f / w.sum[i]);
        if (tx() == 0 && r < count) lse[q0 + r] = w.most[i] + logf(w.sum[i]);
    }
    E *to = head_of<E>(a, a.out, a.ld_out, b, h) + q0 * a.ld_out;
    write_rows(w.out, to, a.ld_out, static_cast<int>(a.head_dim), count, wide);
}

// Late blocks see the most keys: they go first.
template <typename E, int D>
static __global__ void __launch_bounds__(SQUARE) attention_kernel(attention a, int blocks, bool wide) {
    using S = shape<D>;
    extern __shared__ float4 memory[];
    float *q = reinterpret_cast<float *>(memory), *k = q + S::OWN, *v = k + S::OTHER, *p = v + S::OTHER;
    int *first = reinterpret_cast<int *>(p + S::P);
    int64_t head = blockIdx.x % (a.batch * a.heads), b = head / a.heads, h = head % a.heads;
    int block = (blocks - 1 - static_cast<int>(blockIdx.x / (a.batch * a.heads))) * S::ROWS;
    int count = min(S::ROWS, static_cast<int>(a.q_rows) - block), dim = static_cast<int>(a.head_dim);
    int q0 = static_cast<int>(a.q_start) + block, end = q0 + count;
    const E *keys = head_of<const E>(a, a.k, a.ld, b, h / group_of(a));
    const E *values = head_of<const E>(a, a.v, a.ld, b, h / group_of(a));
    running<D> w;
    begin(w);
    load_rows<E, D, S::ROWS>(q, head_of<const E>(a, a.q, a.ld, b, h) + q0 * a.ld, a.ld, dim, count, wide);
    for (int k0 = first_keys<D>(a, b, q0, count, first); k0 < end; k0 += COLS) {
        float s[S::R][C];
        int n = min(COLS, end - k0);
        load_rows<E, D, COLS>(k, keys + k0 * a.ld, a.ld, dim, n, wide);
        load_rows<E, D, COLS>(v, values + k0 * a.ld, a.ld, dim, n, wide);
        __syncthreads();
        dots<D>(s, q, k);
#pragma unroll
        for (int i = 0; i < S::R; i++) {
            int r = ty() * S::R + i;
            weigh_row(w, i, s[i], p + r * P_STRIDE + tx(), first[r], q0 + r, k0 + tx(), a.scale);
        }
        __syncwarp();
        mix(w.out, p, v);
        __syncthreads(); // the tiles are free for the next keys
    }
    finish<E>(a, w, b, h, q0, count, wide);
}

bool attention_fits(cuda_device *c, const attention *a, int64_t blocks) {
    const char *what = NULL;
    int64_t found = 0, most = INT_MAX;
    if (a->head_dim > MOST_DIM) what = "head_dim", found = a->head_dim, most = MOST_DIM;
    if (a->rows > INT_MAX / 2) what = "rows", found = a->rows, most = INT_MAX / 2;
    if (blocks > INT_MAX) what = "blocks", found = blocks;
    if (what)
        cuda_fail(c, err_new(ERR_SYSTEM, "GPU %d: attention with %s %lld: at most %lld on a GPU", c->index,
                             what, static_cast<long long>(found), static_cast<long long>(most)));
    return !what;
}

// Of which a grid can hold blocks of 64 in its second direction.
constexpr int64_t MOST_TENSOR_ROWS = 64 * static_cast<int64_t>(UINT16_MAX);

bool on_tensor_cores(const attention *a) {
    return a->dt == DT_BF16 && (a->head_dim == 64 || a->head_dim == 128) && a->scale > 0 &&
           a->rows <= MOST_TENSOR_ROWS && a->batch <= UINT16_MAX &&
           aligned(16, a->q, a->k, a->v, a->out, a->d_out, a->dq, a->dk, a->dv) &&
           wide_rows<bf16>(a, a->ld) && wide_rows<bf16>(a, a->ld_out);
}

void cuda_attention(device *d, const attention *a) {
    cuda_device *c = cuda_enter(d);
    if (a->batch <= 0 || a->q_rows <= 0 || a->heads <= 0 || a->head_dim <= 0) return;
    if (on_tensor_cores(a)) return tensor_attention(c, a);
    with_type(a->dt, [&](auto element) {
        using E = decltype(element);
        bool wide =
            aligned(16, a->q, a->k, a->v, a->out) && wide_rows<E>(a, a->ld) && wide_rows<E>(a, a->ld_out);
        with_dim(a->head_dim, [&](auto width) {
            constexpr int D = decltype(width)::value;
            using S = shape<D>;
            int64_t blocks = pieces(a->q_rows, S::ROWS), count = blocks * a->batch * a->heads;
            if (!attention_fits(c, a, count)) return;
            size_t shared = (S::OWN + 2 * S::OTHER + S::P + S::ROWS) * sizeof(float);
            launch(c, "attention", attention_kernel<E, D>, dim3((unsigned)count), dim3(SQUARE), shared, *a,
                   (int)blocks, wide);
        });
    });
}
