// Ops that treat each element, or pair of elements, by itself.
#include <string.h>

#include "cpu.h"

// Long arrays are dealt out in pieces of this many elements.
enum { PIECE = 16 * TILE };

typedef struct rotation {
    const float *cos, *sin; // of one row
    int64_t head_dim;
    bool inverse;
} rotation;

// As many whole heads as fit into a tile.
static void rotate_heads(const lanes *l, dtype dt, void *x, int64_t at, int64_t heads, const rotation *r) {
    float tile[TILE];
    int64_t half = r->head_dim / 2, n = heads * r->head_dim;
    row_get(l, dt, x, at, tile, n);
    float *head = row_place(dt, x, at, tile);
    for (int64_t h = 0; h < heads; h++, head += r->head_dim)
        l->rotate(head, head + half, r->cos, r->sin, r->inverse, half);
    row_put(l, dt, x, at, tile, n);
}

// A head that does not fit.
static void rotate_long_head(const lanes *l, dtype dt, void *x, int64_t at, const rotation *r) {
    float a[TILE], b[TILE];
    int64_t half = r->head_dim / 2;
    for (int64_t j = 0; j < half; j += TILE) {
        int64_t n = smaller(half - j, TILE);
        row_get(l, dt, x, at + j, a, n);
        row_get(l, dt, x, at + half + j, b, n);
        float *x1 = row_place(dt, x, at + j, a), *x2 = row_place(dt, x, at + half + j, b);
        l->rotate(x1, x2, r->cos + j, r->sin + j, r->inverse, n);
        row_put(l, dt, x, at + j, x1, n);
        row_put(l, dt, x, at + half + j, x2, n);
    }
}

void cpu_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
              const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse) {
    cpu_device *c = cpu_of(d);
    int64_t half = head_dim / 2, fit = head_dim > 0 ? TILE / head_dim : 0;
    PARALLEL(c, T * heads * head_dim)
    for (int64_t t = 0; t < T; t++) {
        rotation r = {cos + pos[t] * half, sin + pos[t] * half, head_dim, inverse};
        for (int64_t h = 0; h < heads; h += fit ? fit : 1)
            if (fit)
                rotate_heads(c->lanes, dt, x, t * ld + h * head_dim, smaller(heads - h, fit), &r);
            else
                rotate_long_head(c->lanes, dt, x, t * ld + h * head_dim, &r);
    }
}

void cpu_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f) {
    cpu_device *c = cpu_of(d);
    const lanes *l = c->lanes;
    PARALLEL(c, T * f)
    for (int64_t t = 0; t < T; t++) {
        float g[TILE], u[TILE], buffer[TILE];
        for (int64_t j = 0; j < f; j += TILE) {
            int64_t n = smaller(f - j, TILE), at = t * 2 * f + j;
            float *to = row_place(dt, y, t * f + j, buffer);
            l->swiglu(to, row_get(l, dt, gu, at, g, n), row_get(l, dt, gu, at + f, u, n), n);
            row_put(l, dt, y, t * f + j, to, n);
        }
    }
}

void cpu_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T, int64_t f) {
    cpu_device *c = cpu_of(d);
    const lanes *l = c->lanes;
    PARALLEL(c, T * f)
    for (int64_t t = 0; t < T; t++) {
        float g[TILE], u[TILE], grad[TILE];
        for (int64_t j = 0; j < f; j += TILE) {
            int64_t n = smaller(f - j, TILE), at = t * 2 * f + j;
            const float *gate = row_get(l, dt, gu, at, g, n), *up = row_get(l, dt, gu, at + f, u, n);
            float *dgate = row_place(dt, dgu, at, g), *dup = row_place(dt, dgu, at + f, u);
            l->swiglu_back(dgate, dup, row_get(l, dt, dy, t * f + j, grad, n), gate, up, n);
            row_put(l, dt, dgu, at, dgate, n);
            row_put(l, dt, dgu, at + f, dup, n);
        }
    }
}

static void add_piece(const lanes *l, dtype dt, void *y, const void *x, int64_t at, int64_t end) {
    float a[TILE], b[TILE];
    for (; at < end; at += TILE) {
        int64_t n = smaller(end - at, TILE);
        const float *from = row_get(l, dt, y, at, a, n);
        float *to = row_place(dt, y, at, a);
        l->add(to, from, row_get(l, dt, x, at, b, n), n);
        row_put(l, dt, y, at, to, n);
    }
}

void cpu_add(device *d, dtype dt, void *y, const void *x, int64_t n) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, n)
    for (int64_t at = 0; at < n; at += PIECE) add_piece(c->lanes, dt, y, x, at, smaller(n, at + PIECE));
}

void cpu_cast(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, n)
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = smaller(n - at, PIECE);
        if (to == from)
            memmove(element(to, dst, at), element(from, src, at), (size_t)count * dtype_size(to));
        else if (to == DT_F32)
            c->lanes->to_float((float *)dst + at, (const bf16 *)src + at, count);
        else
            c->lanes->from_float((bf16 *)dst + at, (const float *)src + at, count);
    }
}

static const void *row_of(const row_sum *s, int64_t r, int64_t at) {
    return r == s->own_row ? element(s->dt, s->own, at) : element(s->dt, s->rows, r * s->ld + at);
}

static void sum_piece(const lanes *l, const row_sum *s, int64_t at, int64_t end) {
    float sum[TILE], row[TILE];
    for (; at < end; at += TILE) {
        int64_t n = smaller(end - at, TILE);
        row_read(l, s->dt, sum, row_of(s, 0, at), 0, n);
        for (int64_t r = 1; r < s->count; r++)
            l->add(sum, sum, row_get(l, s->dt, row_of(s, r, at), 0, row, n), n);
        row_write(l, s->out_dt, s->out, at, sum, n);
    }
}

void cpu_sum_rows(device *d, const row_sum *s) {
    cpu_device *c = cpu_of(d);
    PARALLEL(c, s->n * s->count)
    for (int64_t at = 0; at < s->n; at += PIECE) sum_piece(c->lanes, s, at, smaller(s->n, at + PIECE));
}
