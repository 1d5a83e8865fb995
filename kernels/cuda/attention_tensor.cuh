// What forward and backward attention on the tensor cores share: tiles of bf16 rows in shared memory, and
// products between them by pieces of 16 x 8 x 16 (ptx.cuh) with fp32 sums.
//
// A block owns rows of one head, and meets the rows of the other side (keys, where it owns queries) a tile at
// a time. A warp owns M times 16 of the block's rows and computes with all rows of the tile, so that only the
// tile is shared. What a lane holds of a matrix [M*16][N*8], its shares, are x[m][n][4]: row m*16 + lane/4,
// columns n*8 + 2 (lane%4) and the next; then the same of row m*16 + 8 + lane/4. The shares of a product, in
// pairs of n, are the pieces of the left factor of another: nothing moves between lanes.
#ifndef SOLAR_CUDA_ATTENTION_TENSOR_CUH
#define SOLAR_CUDA_ATTENTION_TENSOR_CUH

#include "attention.cuh"
#include "ptx.cuh"

constexpr int PIECE = 16; // rows
constexpr int CHUNK = 8;  // bf16 that are moved at once
constexpr float LOG2_E = 1.44269504088896340736f, LN_2 = 0.69314718055994530942f;

// Warps of a block, pieces of own rows of a warp, rows of a tile of the other side.
template <int WARPS_, int M_, int OTHER_> struct block_shape {
    static constexpr int WARPS = WARPS_, M = M_, OTHER = OTHER_, N = OTHER_ / 8;
    static constexpr int THREADS = WARPS * WARP, ROWS = WARPS * M * PIECE;
};

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % WARP; }
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / WARP; }

// Bytes of a tile, which begins at a multiple of 128.
template <int D, int ROWS> constexpr uint32_t TILE_BYTES = 2u * ROWS *D;

// Chunk c of row r, which changes places with others of its row, so that the same chunk of 8 rows lies in 8
// different banks.
template <int D> __device__ inline uint32_t chunk_at(uint32_t tile, int r, int c) {
    return tile + static_cast<uint32_t>(r * (D / CHUNK) + (c ^ (r & 7))) * 16;
}
// From a chunk with an even number, `rows` (a multiple of 8) further down and an even number of chunks to the
// right. Both are constants: one address in a register serves a whole tile.
template <int D> __device__ inline uint32_t away(uint32_t chunk, int rows, int chunks) {
    return (chunk ^ static_cast<uint32_t>(chunks % 8 * 16)) +
           static_cast<uint32_t>(chunks / 8 * 128 + rows * D * 2);
}

// Begins to copy `count` rows into a tile of ROWS; the rest is 0.
template <int D, int ROWS, int THREADS>
__device__ inline void fetch_rows(uint32_t tile, const bf16 *from, int64_t ld, int count) {
    constexpr int CHUNKS = D / CHUNK, STEP = THREADS / CHUNKS;
    static_assert(THREADS % CHUNKS == 0 && STEP % 8 == 0 && ROWS % STEP == 0);
    const int r = static_cast<int>(threadIdx.x) / CHUNKS, c = static_cast<int>(threadIdx.x) % CHUNKS;
    uint32_t to = chunk_at<D>(tile, r, c);
    from += r * ld + c * CHUNK;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP, from += STEP * ld)
        copy_16(to + static_cast<uint32_t>(i * D * 2), from, r + i < count);
}

// s = own rows (from `row` on) times the rows of `other`, over D.
template <int D, int M, int N>
__device__ inline void row_products(float (&s)[M][N][4], uint32_t own, int row, uint32_t other) {
    const int l = lane();
    const uint32_t left = chunk_at<D>(own, row + l % 16, l / 16);
    const uint32_t right = chunk_at<D>(other, l / 16 * 8 + l % 8, l / 8 % 2);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_pieces(a[m], away<D>(left, m * PIECE, 2 * k));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4]; // rows 8n.. twice: left and right chunk; then rows 8(n+1)..
            load_pieces(b, away<D>(right, n * 8, 2 * k));
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply_add(s[m][n], a[m], b[0], b[1]);
                multiply_add(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// out += p [M*16][N*8], rounded to bf16, times the rows of `other` [N*8][D].
template <int D, int M, int N>
__device__ inline void mix_rows(float (&out)[M][D / 8][4], const float (&p)[M][N][4], uint32_t other) {
    const uint32_t right = chunk_at<D>(other, lane() % 16, lane() / 16);
#pragma unroll
    for (int j = 0; j < N; j += 2) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = pack_pair(p[m][j + i / 2][i % 2 * 2], p[m][j + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4]; // columns 8n.. of two pieces of rows; then columns 8(n+1)..
            load_transposed(b, away<D>(right, j * 8, n));
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply_add(out[m][n], a[m], b[0], b[1]);
                multiply_add(out[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Writes the first `count` rows of the block to `to`, times `by`, by way of the warp's own rows of a tile
// that is not needed any more.
template <int D, int M>
__device__ inline void write_shares(const float (&x)[M][D / 8][4], float by, uint32_t tile, bf16 *to,
                                    int64_t ld, int count) {
    constexpr int CHUNKS = D / CHUNK;
    const int row = warp() * M * PIECE, l = lane();
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                store_shared_pair(chunk_at<D>(tile, row + m * PIECE + half * 8 + l / 4, n) +
                                      static_cast<uint32_t>(l % 4) * 4,
                                  pack_pair(by * x[m][n][2 * half], by * x[m][n][2 * half + 1]));
    __syncwarp();
#pragma unroll
    for (int i = 0; i < M * PIECE * CHUNKS / WARP; i++) {
        int at = i * WARP + l, r = row + at / CHUNKS, c = at % CHUNKS;
        if (r < count)
            __stwb(reinterpret_cast<uint4 *>(to + r * ld + c * CHUNK),
                   load_shared_16(chunk_at<D>(tile, r, c)));
    }
}

// The sum (maximum) over the four lanes of a row.
template <typename F> __device__ inline float across_row(float v, F f) {
    v = f(v, __shfl_xor_sync(ALL_LANES, v, 1));
    return f(v, __shfl_xor_sync(ALL_LANES, v, 2));
}

struct smaller {
    __device__ int operator()(int a, int b) const { return a < b ? a : b; }
};
struct greater {
    __device__ int operator()(int a, int b) const { return a > b ? a : b; }
};

// The first key of each of the block's `count` queries from q0 on, that of no query NEVER; the least and the
// greatest of them, in all threads.
template <int THREADS, int ROWS>
__device__ inline int2 first_keys(int *first, const attention &a, int b, int q0, int count) {
    int least = NEVER, most = 0;
    for (int r = static_cast<int>(threadIdx.x); r < ROWS; r += THREADS) {
        first[r] = r < count ? first_key(a, b, q0 + r) : NEVER;
        least = min(least, first[r]);
        if (r < count) most = max(most, first[r]);
    }
    return {block_reduce(least, smaller()), block_reduce(most, greater())};
}

// Heads are neighbours, because those of a group share keys; no number has to be divided to find one.
inline dim3 head_grid(int64_t heads, int64_t blocks, int64_t batch) {
    return dim3(static_cast<unsigned>(heads), static_cast<unsigned>(blocks), static_cast<unsigned>(batch));
}

#endif
