// Causal attention, backward (Dao et al. 2022): scores are computed again block by block; one thread does
// all query heads of a key/value head, so that dk and dv are summed in one order.
//   P = exp(scale q k^T - lse), delta = rowsum(d_out * out)
//   dv = P^T d_out,  dS = P * (d_out v^T - delta) * scale,  dq = dS k,  dk = dS^T q
#include <string.h>

#include "attention.h"

typedef struct back {
    attention_head head;
    int64_t q0, queries; // the block of queries at hand
    float lse[BLOCK], delta[BLOCK];
    head_rows q, d_out;                                // its rows as right operands
    float *q_panels, *d_panels, *q_copy, *d_copy, *dq; // [BLOCK][width]
    float *k_copy, *v_copy;                            // [KEYS][width]
    float *p, *ds, *pairs;                             // tiles of scores; pairs: half of one
    bf16 *p_half, *d_half;                             // the same as bf16
    float *dk, *dv, *k_pairs;                          // [rows][width]; k_pairs: half of that
} back;

static int64_t back_floats(const attention *a) {
    int64_t width = attention_width(a);
    return (5 * BLOCK + 2 * KEYS) * width + 7 * KEYS * BLOCK / 2 + (2 * a->rows + pieces(a->rows, 2)) * width;
}

static void back_place(back *w, float *scratch) {
    int64_t width = attention_width(w->head.a), half = KEYS * BLOCK / 2, rows = w->head.a->rows * width;
    float **const tiles[] = {&w->q_panels, &w->d_panels, &w->q_copy, &w->d_copy, &w->dq};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++, scratch += BLOCK * width) *tiles[i] = scratch;
    w->k_copy = scratch, w->v_copy = w->k_copy + KEYS * width, scratch = w->v_copy + KEYS * width;
    w->p = scratch, w->ds = w->p + 2 * half, w->pairs = w->ds + 2 * half;
    w->p_half = (bf16 *)(w->pairs + half), w->d_half = (bf16 *)(w->pairs + 2 * half);
    w->dk = w->pairs + 3 * half, w->dv = w->dk + rows, w->k_pairs = w->dv + rows;
}

static void block_statistics(back *w) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    memset(w->lse, 0, sizeof w->lse);
    memset(w->delta, 0, sizeof w->delta);
    memcpy(w->lse, a->lse + (h->b * a->heads + h->h) * a->rows + w->q0, (size_t)w->queries * sizeof(float));
    for (int64_t r = 0; r < w->queries; r++)
        for (int64_t j = 0; j < a->head_dim; j += TILE) {
            float x[TILE], y[TILE];
            int64_t n = smaller(a->head_dim - j, TILE), at = head_at(h, w->q0 + r, h->h, a->ld_out) + j;
            w->delta[r] += h->l->dot(row_get(h->l, a->dt, a->d_out, at, x, n),
                                     row_get(h->l, a->dt, a->out, at, y, n), n);
        }
}

// Puts the rows of one operand where scores (panels) and gradients (the result) read them.
static head_rows place_rows(const back *w, const void *base, int64_t ld, float *panels, float *copy) {
    const attention_head *h = &w->head;
    head_rows rows = attention_rows(h, base, ld, h->h, w->q0, w->queries, copy);
    attention_panels(h, rows, w->queries, panels);
    if (!h->pairs) return rows;
    attention_row_pairs(h, base, ld, h->h, w->q0, w->queries, copy);
    return (head_rows){copy, attention_width(h->a)};
}

// c[m, head_dim] += A[m, k] rows[k, head_dim], A(i, p) at at[i*row + p*col]; k counts units
static void add_product(const back *w, float *c, int64_t m, int64_t k, const float *at, int64_t row,
                        int64_t col, head_rows rows) {
    const attention_head *h = &w->head;
    int64_t width = attention_width(h->a);
    tile t = {.m = m, .n = round_up(h->a->head_dim, PANEL / 2), .k = k, .add = true};
    t.a = at, t.a_row = row, t.a_col = col, t.a_strip = h->l->strip * row;
    t.b = rows.at, t.b_row = rows.ld, t.b_panel = PANEL, t.c = c, t.ldc = width;
    multiply_units(h->l, h->pairs, &t);
}

// The products with the weights and ds of n queries from column c on and `keys` from k0 on.
static void add_gradients(const back *w, head_rows k, int64_t c, int64_t n, int64_t k0, int64_t keys) {
    int64_t width = attention_width(w->head.a), q = attention_units(&w->head, n);
    float *dk = w->dk + k0 * width, *dv = w->dv + k0 * width, *dq = w->dq + c * width;
    bool pairs = w->head.pairs;
    const float *p = pairs ? (const float *)(w->p_half + c) : w->p + c;
    const float *ds = pairs ? (const float *)(w->d_half + c) : w->ds + c;
    int64_t at = pairs ? c / 2 : c, row = pairs ? BLOCK / 2 : BLOCK;
    add_product(w, dv, keys, q, p, row, 1, (head_rows){w->d_out.at + at * w->d_out.ld, w->d_out.ld});
    add_product(w, dk, keys, q, ds, row, 1, (head_rows){w->q.at + at * w->q.ld, w->q.ld});
    add_product(w, dq, n, attention_units(&w->head, keys), (pairs ? w->pairs : w->ds) + c, 1, BLOCK, k);
}

static void grad_columns(back *w, head_rows k, head_rows v, int64_t c, int64_t n, int64_t k0, int64_t keys) {
    const attention_head *h = &w->head;
    int64_t units = attention_units(h, h->a->head_dim);
    int32_t first[GROUP], last[GROUP];
    bool whole = attention_whole(h, w->q0 + c, n, k0, keys);
    if (!whole) attention_span(h, w->q0 + c, n, k0, first, last);
    attention_scores(h, k, w->q_panels + c * units, keys, n, w->p + c);
    attention_scores(h, v, w->d_panels + c * units, keys, n, w->ds + c);
    scores s = {.keys = keys, .queries = round_up(n, PANEL), .ld = BLOCK, .scale = h->a->scale};
    s.first = whole ? NULL : first, s.last = whole ? NULL : last, s.p = w->p + c, s.ds = w->ds + c;
    if (h->pairs) s.pairs = w->pairs + c, s.p_half = w->p_half + c, s.d_half = w->d_half + c;
    h->l->weigh_back(&s, w->lse + c, w->delta + c);
    head_rows right = k;
    if (h->pairs) right = (head_rows){w->k_pairs + k0 / 2 * attention_width(h->a), attention_width(h->a)};
    add_gradients(w, right, c, n, k0, keys);
}

static void grad_keys(back *w, int64_t k0, int64_t keys) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    head_rows k = attention_rows(h, a->k, a->ld, h->kv, k0, keys, w->k_copy);
    head_rows v = attention_rows(h, a->v, a->ld, h->kv, k0, keys, w->v_copy);
    int64_t step = attention_whole(h, w->q0, w->queries, k0, keys) ? w->queries : GROUP;
    for (int64_t c = 0; c < w->queries; c += step) {
        int64_t n = smaller(w->queries - c, step), seen = smaller(keys, w->q0 + c + n - k0);
        if (seen > 0) grad_columns(w, k, v, c, n, k0, seen);
    }
}

static void write_rows(const back *w, void *base, const float *from, int64_t i, int64_t h, int64_t count) {
    const attention *a = w->head.a;
    for (int64_t r = 0; r < count; r++, from += attention_width(a))
        row_write(w->head.l, a->dt, base, head_at(&w->head, i + r, h, a->ld), from, a->head_dim);
}

static void grad_queries(back *w) {
    const attention_head *h = &w->head;
    const attention *a = h->a;
    int64_t first = w->q0, end = w->q0 + w->queries;
    block_statistics(w);
    w->q = place_rows(w, a->q, a->ld, w->q_panels, w->q_copy);
    w->d_out = place_rows(w, a->d_out, a->ld_out, w->d_panels, w->d_copy);
    memset(w->dq, 0, (size_t)(BLOCK * attention_width(a)) * sizeof(float));
    for (int64_t i = w->q0; i < end; i++) first = smaller(first, first_key(a, h->b, i));
    for (int64_t k0 = first / KEYS * KEYS; k0 < end; k0 += KEYS) grad_keys(w, k0, smaller(KEYS, end - k0));
    write_rows(w, a->dq, w->dq, w->q0, h->h, w->queries);
}

static void grad_head(back *w, float *scratch) {
    attention_head *h = &w->head;
    const attention *a = h->a;
    int64_t group = a->heads / a->kv_heads, width = attention_width(a);
    back_place(w, scratch);
    memset(w->dk, 0, (size_t)(2 * a->rows * width) * sizeof(float)); // dv follows it
    if (h->pairs) attention_row_pairs(h, a->k, a->ld, h->kv, 0, a->rows, w->k_pairs);
    for (h->h = h->kv * group; h->h < (h->kv + 1) * group; h->h++)
        for (w->q0 = 0; w->q0 < a->rows; w->q0 += BLOCK) {
            w->queries = smaller(BLOCK, a->rows - w->q0);
            grad_queries(w);
        }
    write_rows(w, a->dk, w->dk, 0, h->kv, a->rows);
    write_rows(w, a->dv, w->dv, 0, h->kv, a->rows);
}

void cpu_attention_grad(device *d, const attention *a) {
    cpu_device *c = cpu_of(d);
    if (!cpu_scratch(c, back_floats(a))) return;
    int64_t count = a->batch * a->kv_heads;
    bool parallel = c->threads > 1 && count > 1, pairs = attention_pairs(c->lanes, a);
#pragma omp parallel for schedule(dynamic) num_threads(c->threads) if (parallel)
    for (int64_t at = 0; at < count; at++) {
        back w = {
            .head = {.a = a, .l = c->lanes, .b = at / a->kv_heads, .kv = at % a->kv_heads, .pairs = pairs}};
        grad_head(&w, c->scratch[omp_get_thread_num()].at);
    }
}
