// Cross-entropy over a split vocabulary.
#include "common.cuh"

// One block a row, which is read once: a thread keeps its greatest logit and the sum of exp relative to it.
// The maximum passes over NaN, but the sum does not.
template <int N>
static __global__ void stats_kernel(float *stats, const float *logits, int64_t ld, const int32_t *targets,
                                    int64_t T, int64_t packs, int64_t first) {
    for (int64_t t = blockIdx.x; t < T; t += gridDim.x) {
        const float *row = logits + t * ld;
        float own = -INFINITY, sum = 0, x[N];
        for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
            float before = own;
            load<N>(x, row + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) own = fmaxf(own, x[i]);
            float base = own == -INFINITY ? 0 : own;
            if (own > before) sum *= expf(before - base);
#pragma unroll
            for (int i = 0; i < N; i++) sum += expf(x[i] - base);
        }
        float most = block_reduce(own, larger());
        if (own < most) sum *= expf(own - most);
        sum = block_reduce(sum, plus());
        if (threadIdx.x > 0) continue;
        int64_t target = targets[t] - first;
        bool here = targets[t] >= 0 && target >= 0 && target < packs * N;
        stats[3 * t] = most;
        stats[3 * t + 1] = sum;
        stats[3 * t + 2] = here ? row[target] : -INFINITY;
    }
}

void cuda_xent_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                     int64_t T, int64_t v, int64_t first) {
    cuda_device *c = cuda_enter(d);
    if (T <= 0) return;
    with_width<float>(aligned(16, logits) && ld % 4 == 0 && v % 4 == 0, [&](auto width) {
        constexpr int N = decltype(width)::value;
        launch(c, "xent_stats", stats_kernel<N>, dim3(many(T, INT32_MAX)),
               dim3(v > 0 ? row_threads(v / N) : WARP), 0, stats, logits, ld, targets, T, v / N, first);
    });
}

__device__ static float merged_max(const float *stats, int64_t parts, int64_t T, int64_t t, int field) {
    float most = -INFINITY;
    for (int64_t p = 0; p < parts; p++) {
        float x = stats[(p * T + t) * 3 + field];
        if (isnan(x)) return x;
        most = x > most ? x : most;
    }
    return most;
}

static __global__ void merge_kernel(float *loss, float *lse, const float *stats, int64_t parts,
                                    const int32_t *targets, int64_t T) {
    EACH_COLUMN(t, T) {
        float most = merged_max(stats, parts, T, t, 0);
        double sum = 0;
        for (int64_t p = 0; p < parts; p++) {
            const float *s = stats + (p * T + t) * 3;
            sum += s[1] * exp(static_cast<double>(s[0]) - most);
        }
        double log_sum = most + log(sum);
        lse[t] = static_cast<float>(log_sum);
        loss[t] = targets[t] < 0 ? 0 : static_cast<float>(log_sum - merged_max(stats, parts, T, t, 2));
    }
}

void cuda_xent_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                     const int32_t *targets, int64_t T) {
    plane at(1, T);
    launch(cuda_enter(d), "xent_merge", merge_kernel, at.grid, at.block, 0, loss, lse, stats, parts, targets,
           T);
}

// A thread reads what it then overwrites, so that `grad` may be `logits`.
template <typename E, int N>
static __global__ void xent_grad_kernel(E *grad, const float *logits, int64_t ld, const float *lse,
                                        const int32_t *targets, float scale, int64_t T, int64_t packs,
                                        int64_t first) {
    EACH_ROW(t, T) {
        bool masked = targets[t] < 0;
        int64_t target = targets[t] - first;
        float shift = lse[t];
        EACH_COLUMN(p, packs) {
            float x[N];
            load<N>(x, logits + t * ld + p * N);
#pragma unroll
            for (int i = 0; i < N; i++) {
                x[i] = scale * expf(x[i] - shift) - (p * N + i == target ? scale : 0);
                if (masked) x[i] = 0;
            }
            store<N>(grad + t * ld + p * N, x);
        }
    }
}

void cuda_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                    const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first) {
    cuda_device *c = cuda_enter(d);
    bool wide = aligned(16, grad, logits) && ld % 4 == 0 && v % 4 == 0;
    with_type(dt, [&](auto element) {
        using E = decltype(element);
        with_width<float>(wide, [&](auto width) {
            constexpr int N = decltype(width)::value;
            plane at(T, v / N);
            launch(c, "xent_grad", xent_grad_kernel<E, N>, at.grid, at.block, 0, (E *)grad, logits, ld, lse,
                   targets, scale, T, v / N, first);
        });
    });
}
