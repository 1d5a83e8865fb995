// Causal attention, forward: blocks of queries against blocks of keys with a running maximum and sum, so
// that no score outlives its block. Source of the method: Milakov & Gimelshein 2018 (online softmax), Dao
// et al. 2022 (FlashAttention).
#include "attention.h"

#include <string.h>

void attention_rows(const lanes *l, const attention *a, const void *base, int64_t ld, int64_t b, int64_t i,
                    int64_t h, int64_t count, float *to) {
    int64_t d = a->head_dim, width = attention_width(a);
    for (int64_t r = 0; r < count; r++, to += width) {
        row_read(l, a->dt, to, base, head_at(a, b, i + r, h, ld), d);
        for (int64_t x = d; x < width; x++) to[x] = 0;
    }
}

void attention_panels(const lanes *l, const attention *a, const float *rows, int64_t count, float *to) {
    int64_t d = a->head_dim, width = attention_width(a);
    for (int64_t j = 0; j < count; j += PANEL)
        l->transpose_panel(to + j * d, rows + j * width, width, d, smaller(count - j, PANEL));
}

void attention_scores(const lanes *l, const attention *a, const float *rows, const float *panels, int64_t m,
                      int64_t count, float *c) {
    int64_t d = a->head_dim, width = attention_width(a);
    l->multiply(&(tile){.m = m,
                        .n = round_up(count, PANEL),
                        .k = d,
                        .a = rows,
                        .a_strip = l->strip * width,
                        .a_row = width,
                        .a_col = 1,
                        .b = panels,
                        .b_panel = d * PANEL,
                        .b_row = PANEL,
                        .c = c,
                        .ldc = BLOCK});
}

void attention_mix(const lanes *l, const attention *a, const float *at, int64_t a_row, int64_t a_col,
                   const float *rows, int64_t m, int64_t k, float *c) {
    int64_t width = attention_width(a);
    l->multiply(&(tile){.m = m,
                        .n = round_up(a->head_dim, PANEL / 2),
                        .k = k,
                        .a = at,
                        .a_strip = l->strip * a_row,
                        .a_row = a_row,
                        .a_col = a_col,
                        .b = rows,
                        .b_panel = PANEL,
                        .b_row = width,
                        .c = c,
                        .ldc = width,
                        .add = true});
}

// The work of one thread on one block of queries of one head.
typedef struct block {
    const attention *a;
    const lanes *l;
    int64_t b, h, q0, queries;
    float most[BLOCK], sum[BLOCK]; // running maximum, and sum of exp(score - maximum)
    float *q, *k, *v, *panels, *p, *out;
} block;

static int64_t block_floats(const attention *a) { return 5 * BLOCK * attention_width(a) + BLOCK * BLOCK; }

// Turns the scores of one query into weights, and rescales what it has gathered to the new maximum.
static void weigh_row(block *w, int64_t r, int64_t k0, int64_t keys) {
    const lanes *l = w->l;
    float *p = w->p + r * BLOCK;
    span s = visible(w->a, w->b, w->q0 + r, k0, keys);
    if (s.first >= s.end) {
        memset(p, 0, (size_t)keys * 4);
        return;
    }
    float most = w->most[r], sum = l->weigh(p + s.first, w->a->scale, &most, s.end - s.first);
    clear_outside(p, s, keys);
    float keep = w->most[r] == most ? 1 : expf(w->most[r] - most);
    w->sum[r] = w->sum[r] * keep + sum;
    w->most[r] = most;
    int64_t width = attention_width(w->a);
    if (keep != 1) l->scale(w->out + r * width, keep, width);
}

static void gather(block *w, int64_t k0, int64_t keys) {
    const attention *a = w->a;
    int64_t kv = w->h / (a->heads / a->kv_heads);
    attention_rows(w->l, a, a->k, a->ld, w->b, k0, kv, keys, w->k);
    attention_rows(w->l, a, a->v, a->ld, w->b, k0, kv, keys, w->v);
    attention_panels(w->l, a, w->k, keys, w->panels);
    attention_scores(w->l, a, w->q, w->panels, w->queries, keys, w->p);
    for (int64_t r = 0; r < w->queries; r++) weigh_row(w, r, k0, keys);
    attention_mix(w->l, a, w->p, BLOCK, 1, w->v, w->queries, keys, w->out);
}

static void finish(block *w) {
    const attention *a = w->a;
    int64_t width = attention_width(a);
    for (int64_t r = 0; r < w->queries; r++) {
        int64_t i = w->q0 + r;
        float *out = w->out + r * width;
        w->l->scale(out, 1.0f / w->sum[r], a->head_dim);
        row_write(w->l, a->dt, a->out, head_at(a, w->b, i, w->h, a->ld_out), out, a->head_dim);
        a->lse[(w->b * a->heads + w->h) * a->rows + i] = w->most[r] + logf(w->sum[r]);
    }
}

static void attend(block *w, float *scratch) {
    const attention *a = w->a;
    int64_t tile = BLOCK * attention_width(a), first = w->q0, end = w->q0 + w->queries;
    w->q = scratch, w->k = w->q + tile, w->v = w->k + tile, w->panels = w->v + tile;
    w->out = w->panels + tile, w->p = w->out + tile;
    attention_rows(w->l, a, a->q, a->ld, w->b, w->q0, w->h, w->queries, w->q);
    memset(w->out, 0, (size_t)tile * 4);
    for (int64_t r = 0; r < w->queries; r++) {
        w->most[r] = -INFINITY, w->sum[r] = 0;
        first = smaller(first, first_key(a, w->b, w->q0 + r));
    }
    for (int64_t k0 = first; k0 < end; k0 += BLOCK) gather(w, k0, smaller(BLOCK, end - k0));
    finish(w);
}

void cpu_attention(device *d, const attention *a) {
    cpu_device *c = cpu_of(d);
    if (!cpu_scratch(c, block_floats(a))) return;
    int64_t blocks = pieces(a->q_rows, BLOCK), heads = a->batch * a->heads, count = blocks * heads;
    bool parallel = c->threads > 1 && heads * a->q_rows * a->head_dim > SMALL_WORK / 16;
    // Late blocks see the most keys: they go first, and whoever is free takes the next.
#pragma omp parallel for schedule(dynamic) num_threads(c->threads) if (parallel)
    for (int64_t at = 0; at < count; at++) {
        int64_t head = at % heads, q = (blocks - 1 - at / heads) * BLOCK;
        block w = {.a = a,
                   .l = c->lanes,
                   .b = head / a->heads,
                   .h = head % a->heads,
                   .q0 = a->q_start + q,
                   .queries = smaller(BLOCK, a->q_rows - q)};
        attend(&w, c->scratch[omp_get_thread_num()].at);
    }
}
