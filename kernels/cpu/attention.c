// Causal attention, forward: blocks of queries against blocks of keys with a running maximum and sum, so
// that no score outlives its block. Source of the method: Milakov & Gimelshein 2018 (online softmax), Dao
// et al. 2022 (FlashAttention).
#include "attention.h"

#include <string.h>

static bool even_place(const void *p) { return (uintptr_t)p % sizeof(float) == 0; }

bool attention_pairs(const lanes *l, const attention *a) {
    bool even = a->head_dim % 2 == 0 && a->ld % 2 == 0 && a->ld_out % 2 == 0;
    bool placed = even_place(a->q) && even_place(a->k) && even_place(a->v) && even_place(a->d_out);
    return a->dt == DT_BF16 && l->multiply_pairs && even && placed;
}

head_rows attention_rows(const attention_head *w, const void *base, int64_t ld, int64_t h, int64_t i,
                         int64_t count, float *copy) {
    const attention *a = w->a;
    int64_t at = head_at(w, i, h, ld), d = a->head_dim, width = attention_width(a);
    if (w->pairs) return (head_rows){(const float *)base + at / 2, ld / 2};
    if (a->dt == DT_F32 && d % (PANEL / 2) == 0) return (head_rows){(const float *)base + at, ld};
    for (int64_t r = 0; r < count; r++) {
        row_read(w->l, a->dt, copy + r * width, base, at + r * ld, d);
        for (int64_t x = d; x < width; x++) copy[r * width + x] = 0;
    }
    return (head_rows){copy, width};
}

void attention_row_pairs(const attention_head *w, const void *base, int64_t ld, int64_t h, int64_t i,
                         int64_t count, float *to) {
    int64_t width = attention_width(w->a), d = w->a->head_dim;
    for (int64_t r = 0; r < count; r += 2, to += width) {
        const bf16 *row = (const bf16 *)base + head_at(w, i + r, h, ld);
        w->l->interleave(to, row, r + 1 < count ? row + ld : NULL, d);
        for (int64_t x = d; x < width; x++) to[x] = 0;
    }
}

void attention_panels(const attention_head *w, head_rows rows, int64_t count, float *panels) {
    int64_t k = attention_units(w, w->a->head_dim);
    for (int64_t j = 0; j < count; j += PANEL)
        w->l->transpose(panels + j * k, PANEL, rows.at + j * rows.ld, rows.ld, k, smaller(count - j, PANEL));
}

void attention_scores(const attention_head *w, head_rows rows, const float *panels, int64_t keys, int64_t n,
                      float *c) {
    tile t = {.m = keys, .n = round_up(n, PANEL), .k = attention_units(w, w->a->head_dim)};
    t.a = rows.at, t.a_row = rows.ld, t.a_col = 1, t.a_strip = w->l->strip * rows.ld;
    t.b = panels, t.b_row = PANEL, t.b_panel = t.k * PANEL, t.c = c, t.ldc = BLOCK;
    multiply_units(w->l, w->pairs, &t);
}

bool attention_whole(const attention_head *w, int64_t i, int64_t n, int64_t k0, int64_t keys) {
    bool whole = n % PANEL == 0 && k0 + keys - 1 <= i;
    for (int64_t q = i; whole && q < i + n; q++) whole = first_key(w->a, w->b, q) <= k0;
    return whole;
}

void attention_span(const attention_head *w, int64_t i, int64_t n, int64_t k0, int32_t *first,
                    int32_t *last) {
    for (int64_t q = 0; q < round_up(n, PANEL); q++) {
        int64_t from = q < n ? first_key(w->a, w->b, i + q) - k0 : 0, to = q < n ? i + q - k0 : -1;
        first[q] = (int32_t)(from > 0 ? smaller(from, KEYS) : 0);
        last[q] = (int32_t)smaller(to > -1 ? to : -1, KEYS);
    }
}

// The work of one thread on one block of queries of one head.
typedef struct block {
    attention_head head;
    int64_t q0, queries;
    float most[BLOCK], sum[BLOCK];                   // running maximum, and sum of exp(score - maximum)
    float *q_panels, *k, *v, *p, *pairs, *out, *row; // scratch; out[width][BLOCK] is the result, transposed
} block;

static int64_t block_floats(const attention *a) {
    return (2 * BLOCK + 2 * KEYS + BLOCK) * attention_width(a) + 2 * KEYS * BLOCK;
}

static void place(block *w, float *scratch) {
    int64_t width = attention_width(w->head.a);
    w->q_panels = scratch, w->out = w->q_panels + BLOCK * width, w->row = w->out + BLOCK * width;
    w->k = w->row + BLOCK * width, w->v = w->k + KEYS * width;
    w->p = w->v + KEYS * width, w->pairs = w->p + KEYS * BLOCK;
}

// Adds to the result of n queries from column c on what they take from `keys`: values times weights.
static void mix(const block *w, head_rows v, int64_t c, int64_t n, int64_t keys) {
    const lanes *l = w->head.l;
    bool pairs = w->head.pairs;
    tile t = {.m = w->head.a->head_dim, .n = round_up(n, PANEL), .k = attention_units(&w->head, keys)};
    t.a = v.at, t.a_row = 1, t.a_col = v.ld, t.a_strip = l->strip;
    t.b = (pairs ? w->pairs : w->p) + c, t.b_row = BLOCK, t.b_panel = PANEL;
    t.c = w->out + c, t.ldc = BLOCK, t.add = true;
    multiply_units(l, pairs, &t);
}

// n queries from column c on against `keys` from k0 on.
static void gather_columns(block *w, head_rows k, head_rows v, int64_t c, int64_t n, int64_t k0,
                           int64_t keys) {
    const attention_head *h = &w->head;
    int32_t first[GROUP], last[GROUP];
    bool whole = attention_whole(h, w->q0 + c, n, k0, keys);
    if (!whole) attention_span(h, w->q0 + c, n, k0, first, last);
    attention_scores(h, k, w->q_panels + c * attention_units(h, h->a->head_dim), keys, n, w->p + c);
    scores s = {.keys = keys, .queries = round_up(n, PANEL), .ld = BLOCK, .scale = h->a->scale};
    s.p = w->p + c, s.pairs = h->pairs ? w->pairs + c : NULL;
    s.first = whole ? NULL : first, s.last = whole ? NULL : last;
    h->l->weigh(&s, w->most + c, w->sum + c, w->out + c, h->a->head_dim);
    mix(w, v, c, n, keys);
}

static void gather(block *w, int64_t k0, int64_t keys) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    head_rows k = attention_rows(h, a->k, a->ld, h->kv, k0, keys, w->k), v = {w->v, attention_width(a)};
    if (h->pairs)
        attention_row_pairs(h, a->v, a->ld, h->kv, k0, keys, w->v);
    else
        v = attention_rows(h, a->v, a->ld, h->kv, k0, keys, w->v);
    int64_t step = attention_whole(h, w->q0, w->queries, k0, keys) ? w->queries : GROUP;
    for (int64_t c = 0; c < w->queries; c += step) {
        int64_t n = smaller(w->queries - c, step), seen = smaller(keys, w->q0 + c + n - k0);
        if (seen > 0) gather_columns(w, k, v, c, n, k0, seen);
    }
}

static void finish(block *w) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    int64_t width = attention_width(a), d = a->head_dim;
    for (int64_t j = 0; j < d; j += PANEL)
        h->l->transpose(w->row + j, width, w->out + j * BLOCK, BLOCK, w->queries, smaller(d - j, PANEL));
    for (int64_t r = 0; r < w->queries; r++) {
        int64_t i = w->q0 + r;
        float *row = w->row + r * width;
        h->l->scale(row, 1.0f / w->sum[r], d);
        row_write(h->l, a->dt, a->out, head_at(h, i, h->h, a->ld_out), row, d);
        a->lse[(h->b * a->heads + h->h) * a->rows + i] = w->most[r] + logf(w->sum[r]);
    }
}

static void attend(block *w, float *scratch) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    int64_t first = w->q0, end = w->q0 + w->queries;
    place(w, scratch);
    attention_panels(h, attention_rows(h, a->q, a->ld, h->h, w->q0, w->queries, w->row), w->queries,
                     w->q_panels);
    memset(w->out, 0, (size_t)(a->head_dim * BLOCK) * sizeof(float));
    for (int64_t r = 0; r < BLOCK; r++) w->most[r] = -INFINITY, w->sum[r] = 0;
    for (int64_t i = w->q0; i < end; i++) first = smaller(first, first_key(a, h->b, i));
    for (int64_t k0 = first; k0 < end; k0 += KEYS) gather(w, k0, smaller(KEYS, end - k0));
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
        int64_t head = at % heads, h = head % a->heads, q = (blocks - 1 - at / heads) * BLOCK;
        block w = {.head = {.a = a, .l = c->lanes, .b = head / a->heads, .h = h}};
        w.head.kv = h / (a->heads / a->kv_heads), w.head.pairs = attention_pairs(c->lanes, a);
        w.q0 = a->q_start + q, w.queries = smaller(BLOCK, a->q_rows - q);
        attend(&w, c->scratch[omp_get_thread_num()].at);
    }
}
