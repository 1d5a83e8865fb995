// What forward and backward attention share: tiles of rows in shared memory as fp32, products between them,
// and which query sees which key.
//
// A block owns ROWS rows of one head (queries; keys in the gradient of keys and values) and meets the other
// side COLS rows at a time. Its threads form a square of SIDE x SIDE: thread (ty, tx) works on rows ty*R ..
// ty*R+R-1 and on columns tx, tx+SIDE, .. of a tile of scores, and on W neighbouring dimensions in each PART
// of the head. D is head_dim rounded up to 32, 64, 128 or 256; what is past head_dim is 0. fp32 arithmetic on
// the ordinary cores; attention_tensor.cuh is for the tensor cores.
#ifndef SOLAR_CUDA_ATTENTION_CUH
#define SOLAR_CUDA_ATTENTION_CUH

#include "common.cuh"

constexpr int SIDE = 16, SQUARE = SIDE * SIDE;
constexpr int COLS = 32, C = COLS / SIDE;
constexpr int P_STRIDE = COLS + 4;
constexpr int MOST_DIM = 256;
constexpr int NEVER = INT32_MAX; // first key of a query that sees none

template <int D> struct shape {
    static constexpr int ROWS = D <= 128 ? 64 : 32;
    // 4 floats apart modulo the banks: the 8 threads that load a float4 at once from 8 rows meet no conflict
    static constexpr int STRIDE = D + 4;
    static constexpr int R = ROWS / SIDE;
    static constexpr int W = D / SIDE < 4 ? D / SIDE : 4;
    static constexpr int PARTS = D / (SIDE * W);
    static constexpr int OWN = ROWS * STRIDE, OTHER = COLS * STRIDE,
                         P = ROWS * P_STRIDE; // floats of the tiles
};

__device__ inline int tx() { return static_cast<int>(threadIdx.x) % SIDE; }
__device__ inline int ty() { return static_cast<int>(threadIdx.x) / SIDE; }

// ---- where things lie

__device__ inline int group_of(const attention &a) {
    return static_cast<int>(a.heads) / static_cast<int>(a.kv_heads);
}

// Row 0 of sequence b, head h.
template <typename E>
__device__ inline E *head_of(const attention &a, const void *base, int64_t ld, int64_t b, int64_t h) {
    return static_cast<E *>(const_cast<void *>(base)) + b * a.rows * ld + h * a.head_dim;
}

// First row of statistics (lse, delta) of head h of sequence b.
__device__ inline int64_t statistics_of(const attention &a, int64_t b, int64_t h) {
    return (b * a.heads + h) * a.rows;
}

// Query i of sequence b sees keys first_key .. i.
__device__ inline int first_key(const attention &a, int64_t b, int i) {
    int64_t start = a.start ? a.start[b * a.rows + i] : 0, oldest = i - a.window + 1;
    return static_cast<int>(a.window > 0 && oldest > start ? oldest : start);
}

// ---- tiles

// Copies `count` rows to a tile of N_ROWS, the rest is 0; N elements at a time.
template <int N, typename E, int D, int N_ROWS>
__device__ inline void load_packs(float *to, const E *from, int64_t ld, int dim, int count) {
    constexpr int PACKS = D / N;
    for (int i = static_cast<int>(threadIdx.x); i < N_ROWS * PACKS; i += SQUARE) {
        int r = i / PACKS, d = i % PACKS * N;
        float x[N] = {};
        if (r < count && d < dim) load<N>(x, from + r * ld + d);
        store_shared<N>(to + r * shape<D>::STRIDE + d, x);
    }
}

template <typename E, int D, int N_ROWS>
__device__ inline void load_rows(float *to, const E *from, int64_t ld, int dim, int count, bool wide) {
    if (wide)
        load_packs<16 / sizeof(E), E, D, N_ROWS>(to, from, ld, dim, count);
    else
        load_packs<1, E, D, N_ROWS>(to, from, ld, dim, count);
}

// s = own other^T, for the rows and columns of this thread.
template <int D>
__device__ inline void dots(float (&s)[shape<D>::R][C], const float *own, const float *other) {
    constexpr int R = shape<D>::R, STRIDE = shape<D>::STRIDE;
    own += ty() * R * STRIDE;
    other += tx() * STRIDE;
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) s[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        float x[R][4], y[C][4];
#pragma unroll
        for (int i = 0; i < R; i++) load<4>(x[i], own + i * STRIDE + d);
#pragma unroll
        for (int j = 0; j < C; j++) load<4>(y[j], other + j * SIDE * STRIDE + d);
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < C; j++)
#pragma unroll
                for (int u = 0; u < 4; u++) s[i][j] += x[i][u] * y[j][u];
    }
}

// What a thread gathers of its rows: its dimensions of each.
template <int D> struct gathered { float x[shape<D>::R][shape<D>::PARTS][shape<D>::W]; };

// g += p other. A row of p is written by the half warp that reads it: __syncwarp is enough between.
template <int D> __device__ inline void mix(gathered<D> &g, const float *p, const float *other) {
    using S = shape<D>;
    p += ty() * S::R * P_STRIDE;
    other += tx() * S::W;
#pragma unroll 2
    for (int c = 0; c < COLS; c += 4) {
        float weight[S::R][4];
#pragma unroll
        for (int i = 0; i < S::R; i++) load<4>(weight[i], p + i * P_STRIDE + c);
#pragma unroll
        for (int u = 0; u < 4; u++)
#pragma unroll
            for (int e = 0; e < S::PARTS; e++) {
                float v[S::W];
                load<S::W>(v, other + (c + u) * S::STRIDE + e * SIDE * S::W);
#pragma unroll
                for (int i = 0; i < S::R; i++)
#pragma unroll
                    for (int w = 0; w < S::W; w++) g.x[i][e][w] += weight[i][u] * v[w];
            }
    }
}

template <int D> __device__ inline void multiply_row(gathered<D> &g, int i, float by) {
#pragma unroll
    for (int e = 0; e < shape<D>::PARTS; e++)
#pragma unroll
        for (int w = 0; w < shape<D>::W; w++) g.x[i][e][w] *= by;
}

// Writes the first `count` rows to `to`, row 0 of the tile.
template <typename E, int D>
__device__ inline void write_rows(const gathered<D> &g, E *to, int64_t ld, int dim, int count, bool wide) {
    using S = shape<D>;
#pragma unroll
    for (int i = 0; i < S::R; i++) {
        int r = ty() * S::R + i;
        if (r >= count) return;
#pragma unroll
        for (int e = 0; e < S::PARTS; e++) {
            int d = (e * SIDE + tx()) * S::W;
            E *at = to + r * ld + d;
            if (wide && d < dim)
                store<S::W>(at, g.x[i][e]);
            else
#pragma unroll
                for (int w = 0; w < S::W; w++)
                    if (d + w < dim) at[w] = from_float<E>(g.x[i][e][w]);
        }
    }
}

// ---- launching

// Whether rows of `p` can be moved in packs of 16 bytes.
template <typename E> inline bool wide_rows(const attention *a, int64_t ld) {
    int64_t n = 16 / sizeof(E);
    return ld % n == 0 && a->head_dim % n == 0;
}

// Whether the shape is one that the kernels can do; else the failure is kept.
bool attention_fits(cuda_device *c, const attention *a, int64_t blocks);

// Whether the kernels of attention_tensor*.cu can do it: bf16, the usual head_dim, rows that move in packs.
bool on_tensor_cores(const attention *a);
void tensor_attention(cuda_device *c, const attention *a);
void tensor_attention_grad(cuda_device *c, const attention *a); // dq, dk and dv; delta is there

// f(width<D>()) for the D that holds head_dim.
template <typename F> void with_dim(int64_t head_dim, F f) {
    if (head_dim <= 32)
        f(width<32>());
    else if (head_dim <= 64)
        f(width<64>());
    else if (head_dim <= 128)
        f(width<128>());
    else
        f(width<256>());
}

#endif
