// RMSNorm, forward and backward.
#include <string.h>

#include "cpu.h"

// One row: the sum where asked for, and its norm. Returns rstd.
static float norm_row(const lanes *l, dtype dt, void *y, void *sum, const void *x, const void *delta,
                      const void *w, int64_t at, int64_t h, float eps) {
    float a[TILE], b[TILE];
    double squares = 0;
    for (int64_t j = 0; j < h; j += TILE) {
        int64_t n = smaller(h - j, TILE);
        const float *s = row_get(l, dt, x, at + j, a, n);
        if (delta) {
            float *to = row_place(dt, sum, at + j, a);
            l->add(to, s, row_get(l, dt, delta, at + j, b, n), n);
            row_put(l, dt, sum, at + j, to, n);
            s = row_get(l, dt, sum, at + j, a, n); // the sum as it was rounded
        }
        squares += l->dot(s, s, n);
    }
    float rstd = (float)(1.0 / sqrt(squares / (double)h + eps));
    const void *source = delta ? sum : x;
    for (int64_t j = 0; j < h; j += TILE) {
        int64_t n = smaller(h - j, TILE);
        float *to = row_place(dt, y, at + j, b);
        const float *s = row_get(l, dt, source, at + j, a, n);
        float weight[TILE];
        l->norm(to, s, row_get(l, dt, w, j, weight, n), rstd, dt == DT_BF16, n);
        row_put(l, dt, y, at + j, to, n);
    }
    return rstd;
}

void cpu_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                 const void *w, int64_t T, int64_t h, float eps) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, T * h)
    for (int64_t t = 0; t < T; t++) rstd[t] = norm_row(c->lanes, dt, y, sum, x, delta, w, t * h, h, eps);
}

// ---- backward: rows are dealt to a number of chunks that depends on T only; each chunk sums its own dw.
enum { CHUNK_ROWS = 16, MAX_CHUNKS = 128 };

static int64_t norm_chunks(int64_t T) { return smaller(pieces(T, CHUNK_ROWS), MAX_CHUNKS); }

int64_t ops_norm_partial(int64_t T, int64_t h) { return norm_chunks(T) * h; }

typedef struct norm_grad {
    dtype dt;
    void *dx;
    const void *residual, *dy, *x, *w;
} norm_grad;

static void norm_grad_row(const lanes *l, const norm_grad *g, float *dw, int64_t at, int64_t h, float rstd) {
    float a[TILE], b[TILE], weight[TILE], r[TILE], to_tile[TILE];
    dtype dt = g->dt;
    double inner = 0;
    for (int64_t j = 0; j < h; j += TILE) {
        int64_t n = smaller(h - j, TILE);
        inner += l->dot3(row_get(l, dt, g->dy, at + j, a, n), row_get(l, dt, g->x, at + j, b, n),
                         row_get(l, dt, g->w, j, weight, n), n);
    }
    float along = (float)(inner * rstd * rstd / (double)h);
    for (int64_t j = 0; j < h; j += TILE) {
        int64_t n = smaller(h - j, TILE);
        float *to = row_place(dt, g->dx, at + j, to_tile);
        const float *residual = g->residual ? row_get(l, dt, g->residual, at + j, r, n) : NULL;
        l->norm_back(to, dw + j, residual, row_get(l, dt, g->dy, at + j, a, n),
                     row_get(l, dt, g->x, at + j, b, n), row_get(l, dt, g->w, j, weight, n), rstd, along,
                     dt == DT_BF16, n);
        row_put(l, dt, g->dx, at + j, to, n);
    }
}

// dw += the sums of the chunks, in order
static void add_chunks(const lanes *l, dtype gdt, void *dw, const float *partial, int64_t chunks, int64_t h) {
    for (int64_t j = 0; j < h; j += TILE) {
        float tile[TILE], *to = row_place(gdt, dw, j, tile);
        int64_t n = smaller(h - j, TILE);
        row_get(l, gdt, dw, j, tile, n);
        for (int64_t k = 0; k < chunks; k++) l->add(to, to, partial + k * h + j, n);
        row_put(l, gdt, dw, j, to, n);
    }
}

void cpu_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                      const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                      int64_t T, int64_t h) {
    cpu_device *c = cpu_of(d);
    norm_grad g = {dt, dx, residual, dy, x, w};
    int64_t chunks = norm_chunks(T);
    PARALLEL(c, T * h)
    for (int64_t k = 0; k < chunks; k++) {
        float *sum = partial + k * h;
        memset(sum, 0, (size_t)h * 4);
        for (int64_t t = T * k / chunks; t < T * (k + 1) / chunks; t++)
            norm_grad_row(c->lanes, &g, sum, t * h, h, rstd[t]);
    }
    add_chunks(c->lanes, gdt, dw, partial, chunks, h);
}
