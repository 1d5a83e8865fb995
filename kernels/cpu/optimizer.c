// Sums of long arrays in a fixed order, and AdamW.
#include "cpu.h"

enum { PIECES = 256 };

// Cuts x into PIECES pieces whatever the number of threads, and adds their sums in order.
static double sum_pieces(cpu_device *c, const float *x, int64_t n, double (*of)(const float *, int64_t)) {
    double piece[PIECES], sum = 0;
    int64_t size = round_up(pieces(n, PIECES), PANEL);
    PARALLEL(c, n)
    for (int p = 0; p < PIECES; p++) {
        int64_t first = smaller(n, p * size);
        piece[p] = of(x + first, smaller(n - first, size));
    }
    for (int p = 0; p < PIECES; p++) sum += piece[p];
    return sum;
}

void cpu_sum(device *d, double *out, const float *x, int64_t n) {
    *out = sum_pieces(cpu_of(d), x, n, cpu_of(d)->lanes->sum);
}

void cpu_sumsq(device *d, double *out, const float *x, int64_t n) {
    *out = sum_pieces(cpu_of(d), x, n, cpu_of(d)->lanes->sumsq);
}

// The update of one tile. bf16 weights become fp32 ones and go back into their two halves.
static void adamw_tile(const lanes *l, const adamw *a, const adamw_step *s, int64_t at, int64_t n) {
    float tile[TILE], *w = row_place(a->dt, a->weight, at, tile);
    bf16 *near = (bf16 *)a->weight + at;
    if (a->rest) l->join(w, near, a->rest + at, n);
    l->adamw(w, a->m + at, a->v + at, a->grad + at, s, n);
    if (a->rest) l->split(near, a->rest + at, w, n);
}

void cpu_adamw(device *d, const adamw *a) {
    cpu_device *c = cpu_of(d);
    adamw_step s = {
        .grad_scale = a->grad_scale,
        .keep = (float)(1.0 - (double)a->lr * a->decay),
        .beta1 = a->beta1,
        .beta2 = a->beta2,
        .rate = (float)(a->lr / (1.0 - pow(a->beta1, (double)a->step))),
        .root = (float)(1.0 / sqrt(1.0 - pow(a->beta2, (double)a->step))),
        .eps = a->eps,
    };
    PARALLEL(c, a->n * 4)
    for (int64_t at = 0; at < a->n; at += TILE) adamw_tile(c->lanes, a, &s, at, smaller(a->n - at, TILE));
}
