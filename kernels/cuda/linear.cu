// Bias of a linear layer.
#include "common.cuh"

template <typename E, int N>
static __global__ void bias_kernel(E *y, int64_t ld, const E *b, int64_t T, int64_t packs) {
    EACH_COLUMN(p, packs) {
        float add[N];
        load<N>(add, b + p * N);
        EACH_ROW(t, T) {
            float v[N];
            load<N>(v, y + t * ld + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) v[i] += add[i];
            store<N>(y + t * ld + p * N, v);
        }
    }
}

void cuda_bias(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n) {
    cuda_device *c = cuda_enter(d);
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        int64_t most = 16 / sizeof(E);
        bool wide = aligned(16, y, b) && ld % most == 0 && n % most == 0;
        with_width<E>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, n / N);
            launch(c, "bias", bias_kernel<E, N>, at.grid, at.block, 0, (E *)y, ld, (const E *)b, T, n / N);
        });
    });
}

// Sums of columns. A block owns WARP columns; each of its warps takes every LINES-th row, and the sums of the
// warps are added in order. fp64, so that the error does not grow with T.
constexpr int LINES = 16;

template <typename E, typename G>
static __global__ void bias_grad_kernel(G *db, const E *dy, int64_t ld, int64_t T, int64_t n) {
    __shared__ double part[LINES][WARP];
    int64_t j = static_cast<int64_t>(blockIdx.x) * WARP + threadIdx.x;
    double sum = 0;
    for (int64_t t = threadIdx.y; j < n && t < T; t += LINES) sum += to_float(dy[t * ld + j]);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || j >= n) return;
    for (int line = 1; line < LINES; line++) sum += part[line][threadIdx.x];
    db[j] = from_float<G>(static_cast<float>(to_float(db[j]) + sum));
}

void cuda_bias_grad(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                    int64_t n) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0 || n <= 0) return;
    with_types(dt, gdt, [&](auto element, auto gradient) {
        using E = decltype(element);
        using G = decltype(gradient);
        launch(c, "bias_grad", bias_grad_kernel<E, G>, dim3(many(pieces(n, WARP), INT32_MAX)),
               dim3(WARP, LINES), 0, (G *)db, (const E *)dy, ld, T, n);
    });
}
