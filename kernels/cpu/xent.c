// Cross-entropy over a split vocabulary.
#include <string.h>

#include "cpu.h"

void cpu_xent_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                    int64_t T, int64_t v, int64_t first) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, T * v)
    for (int64_t t = 0; t < T; t++) {
        const float *row = logits + t * ld;
        int64_t target = targets[t] - first;
        bool here = targets[t] >= 0 && target >= 0 && target < v;
        float most = c->lanes->max(row, v); // passes over NaN, but the sum below does not
        stats[3 * t] = most;
        stats[3 * t + 1] = c->lanes->exp_sum(row, most, v);
        stats[3 * t + 2] = here ? row[target] : -INFINITY;
    }
}

static float merged_max(const float *stats, int64_t parts, int64_t T, int64_t t, int field) {
    float most = -INFINITY;
    for (int64_t p = 0; p < parts; p++) {
        float x = stats[(p * T + t) * 3 + field];
        if (isnan(x)) return x;
        most = x > most ? x : most;
    }
    return most;
}

void cpu_xent_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                    const int32_t *targets, int64_t T) {
    (void)d;
    for (int64_t t = 0; t < T; t++) {
        float most = merged_max(stats, parts, T, t, 0);
        double sum = 0;
        for (int64_t p = 0; p < parts; p++) {
            const float *s = stats + (p * T + t) * 3;
            sum += s[1] * exp((double)s[0] - most);
        }
        double log_sum = most + log(sum);
        lse[t] = (float)log_sum;
        loss[t] = targets[t] < 0 ? 0 : (float)(log_sum - merged_max(stats, parts, T, t, 2));
    }
}

void cpu_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                   const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, T * v)
    for (int64_t t = 0; t < T; t++) {
        int64_t target = targets[t] - first;
        if (targets[t] < 0) {
            memset(element(dt, grad, t * ld), 0, (size_t)v * dtype_size(dt));
            continue;
        }
        float tile[TILE];
        for (int64_t j = 0; j < v; j += TILE) {
            int64_t n = smaller(v - j, TILE), at = t * ld + j;
            float *to = row_place(dt, grad, at, tile);
            c->lanes->scaled_exp(to, logits + at, scale, lse[t], n);
            if (target >= j && target < j + n) to[target - j] -= scale;
            row_put(c->lanes, dt, grad, at, to, n);
        }
    }
}
