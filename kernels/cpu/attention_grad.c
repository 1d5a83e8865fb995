// Causal attention, backward (Dao et al. 2022): scores are computed again block by block; one thread does
// all query heads of a key/value head, so that dk and dv are summed in one order.
//   P = exp(scale q k^T - lse), delta = rowsum(d_out * out)
//   dv = P^T d_out,  dS = P * (d_out v^T - delta) * scale,  dq = dS k,  dk = dS^T q
#include <string.h>

#include "attention.h"

typedef struct back {
    const attention *a;
    const lanes *l;
    int64_t b, kv, group;
    float *q, *d_out, *k, *k_panels, *v_panels, *dk, *dv, *p, *ds; // tiles
    float *dq;                                                     // [group, rows, width]
} back;

static int64_t back_floats(const attention *a) {
    int64_t width = attention_width(a);
    return 7 * BLOCK * width + 2 * BLOCK * BLOCK + a->heads / a->kv_heads * a->rows * width;
}

static void back_place(back *w, float *scratch) {
    int64_t tile = BLOCK * attention_width(w->a);
    float **const tiles[] = {&w->q, &w->d_out, &w->k, &w->k_panels, &w->v_panels, &w->dk, &w->dv};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++, scratch += tile) *tiles[i] = scratch;
    w->p = scratch, w->ds = w->p + BLOCK * BLOCK, w->dq = w->ds + BLOCK * BLOCK;
}

static float *statistic(const back *w, float *base, int64_t h, int64_t i) {
    return base + (w->b * w->a->heads + h) * w->a->rows + i;
}

static void head_delta(back *w, int64_t h) {
    const attention *a = w->a;
    for (int64_t i = 0; i < a->rows; i++) {
        int64_t at = head_at(a, w->b, i, h, a->ld_out);
        float sum = 0;
        for (int64_t j = 0; j < a->head_dim; j += TILE) {
            float x[TILE], y[TILE];
            int64_t n = smaller(a->head_dim - j, TILE);
            sum += w->l->dot(row_get(w->l, a->dt, a->d_out, at + j, x, n),
                             row_get(w->l, a->dt, a->out, at + j, y, n), n);
        }
        *statistic(w, a->delta, h, i) = sum;
    }
}

// One row of P and dS from its scores (in p) and d_out v^T (in ds).
static void grad_row(const back *w, int64_t h, int64_t i, int64_t k0, int64_t keys, float *p, float *ds) {
    const attention *a = w->a;
    span s = visible(a, w->b, i, k0, keys);
    if (s.first >= s.end) s = (span){0, 0};
    int64_t n = s.end - s.first;
    clear_outside(p, s, keys);
    clear_outside(ds, s, keys);
    p += s.first, ds += s.first;
    w->l->weigh_back(p, ds, a->scale, *statistic(w, a->lse, h, i), *statistic(w, a->delta, h, i), n);
}

static bool any_visible(const back *w, int64_t q0, int64_t queries, int64_t k0, int64_t keys) {
    for (int64_t i = q0; i < q0 + queries; i++) {
        span s = visible(w->a, w->b, i, k0, keys);
        if (s.first < s.end) return true;
    }
    return false;
}

// One block of queries of query head g of the group against the block of keys in the tiles.
static void grad_block(back *w, int64_t g, int64_t q0, int64_t k0, int64_t keys) {
    const attention *a = w->a;
    int64_t queries = smaller(BLOCK, a->rows - q0), h = w->kv * w->group + g, width = attention_width(a);
    if (!any_visible(w, q0, queries, k0, keys)) return;
    attention_rows(w->l, a, a->q, a->ld, w->b, q0, h, queries, w->q);
    attention_rows(w->l, a, a->d_out, a->ld_out, w->b, q0, h, queries, w->d_out);
    attention_scores(w->l, a, w->q, w->k_panels, queries, keys, w->p);
    attention_scores(w->l, a, w->d_out, w->v_panels, queries, keys, w->ds);
    for (int64_t r = 0; r < queries; r++)
        grad_row(w, h, q0 + r, k0, keys, w->p + r * BLOCK, w->ds + r * BLOCK);
    attention_mix(w->l, a, w->p, 1, BLOCK, w->d_out, keys, queries, w->dv);
    attention_mix(w->l, a, w->ds, 1, BLOCK, w->q, keys, queries, w->dk);
    attention_mix(w->l, a, w->ds, BLOCK, 1, w->k, queries, keys, w->dq + (g * a->rows + q0) * width);
}

static void write_rows(const back *w, void *base, const float *from, int64_t i, int64_t h, int64_t count) {
    const attention *a = w->a;
    for (int64_t r = 0; r < count; r++, from += attention_width(a))
        row_write(w->l, a->dt, base, head_at(a, w->b, i + r, h, a->ld), from, a->head_dim);
}

static void grad_keys(back *w, int64_t k0) {
    const attention *a = w->a;
    int64_t keys = smaller(BLOCK, a->rows - k0);
    size_t bytes = (size_t)(BLOCK * attention_width(a)) * 4;
    attention_rows(w->l, a, a->v, a->ld, w->b, k0, w->kv, keys, w->k);
    attention_panels(w->l, a, w->k, keys, w->v_panels);
    attention_rows(w->l, a, a->k, a->ld, w->b, k0, w->kv, keys, w->k);
    attention_panels(w->l, a, w->k, keys, w->k_panels);
    memset(w->dk, 0, bytes);
    memset(w->dv, 0, bytes);
    int64_t end = a->window > 0 ? smaller(a->rows, k0 + keys - 1 + a->window) : a->rows;
    for (int64_t g = 0; g < w->group; g++)
        for (int64_t q0 = k0; q0 < end; q0 += BLOCK) grad_block(w, g, q0, k0, keys);
    write_rows(w, a->dk, w->dk, k0, w->kv, keys);
    write_rows(w, a->dv, w->dv, k0, w->kv, keys);
}

void cpu_attention_grad(device *d, const attention *a) {
    cpu_device *c = cpu_of(d);
    if (!cpu_scratch(c, back_floats(a))) return;
    int64_t group = a->heads / a->kv_heads, count = a->batch * a->kv_heads;
    bool parallel = c->threads > 1 && count > 1;
#pragma omp parallel for schedule(dynamic) num_threads(c->threads) if (parallel)
    for (int64_t at = 0; at < count; at++) {
        back w = {.a = a, .l = c->lanes, .b = at / a->kv_heads, .kv = at % a->kv_heads, .group = group};
        back_place(&w, c->scratch[omp_get_thread_num()].at);
        memset(w.dq, 0, (size_t)(group * a->rows * attention_width(a)) * 4);
        for (int64_t g = 0; g < group; g++) head_delta(&w, w.kv * group + g);
        for (int64_t k0 = 0; k0 < a->rows; k0 += BLOCK) grad_keys(&w, k0);
        for (int64_t g = 0; g < group; g++)
            write_rows(&w, a->dq, w.dq + g * a->rows * attention_width(a), 0, w.kv * group + g, a->rows);
    }
}
