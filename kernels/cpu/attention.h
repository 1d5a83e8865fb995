// What forward and backward attention share. Scores are computed transposed, in tiles whose rows are keys
// and whose columns are queries: softmax then runs along columns, many queries in a vector, and keys and
// values are read row by row, mostly where they lie. Where the products multiply pairs of bf16 (rows of even
// length and place), q, k, v and the weights are such pairs; softmax and all sums are fp32.
#ifndef SOLAR_CPU_ATTENTION_H
#define SOLAR_CPU_ATTENTION_H

#include "cpu.h"

enum {
    BLOCK = 128,       // queries of a tile, and floats between its rows
    KEYS = 128,        // keys of a tile
    GROUP = 2 * PANEL, // queries that go together where a tile meets the diagonal, or the edge of a window
};

// The head that a thread works on.
typedef struct attention_head {
    const attention *a;
    const lanes *l;
    int64_t b, h, kv;
    bool pairs; // products of pairs of bf16; else of floats
} attention_head;

// Rows of a head as the loops read them: in units (floats, or pairs of bf16), `ld` apart.
typedef struct head_rows {
    const float *at;
    int64_t ld;
} head_rows;

static inline int64_t attention_width(const attention *a) { return round_up(a->head_dim, PANEL); }
static inline int64_t attention_units(const attention_head *w, int64_t n) {
    return w->pairs ? pieces(n, 2) : n;
}

// Where the head `h` of row i of the sequence starts.
static inline int64_t head_at(const attention_head *w, int64_t i, int64_t h, int64_t ld) {
    return (w->b * w->a->rows + i) * ld + h * w->a->head_dim;
}

static inline int64_t first_key(const attention *a, int64_t b, int64_t i) {
    int64_t start = a->start ? a->start[b * a->rows + i] : 0;
    return a->window > 0 && i - a->window + 1 > start ? i - a->window + 1 : start;
}

// Whether rows of q, k, v (and, backward, of d_out) can be multiplied as pairs.
bool attention_pairs(const lanes *l, const attention *a);
// `count` rows of head h from row i on: in place, or as floats in `copy`, `width` apart, padded with zeros.
head_rows attention_rows(const attention_head *w, const void *base, int64_t ld, int64_t h, int64_t i,
                         int64_t count, float *copy);
// Rows i, i+1 of the head, and so on, as pairs along the rows: pieces(count, 2) rows of `width` units.
void attention_row_pairs(const attention_head *w, const void *base, int64_t ld, int64_t h, int64_t i,
                         int64_t count, float *to);
// The panels of the transposed rows: what `attention_scores` multiplies.
void attention_panels(const attention_head *w, head_rows rows, int64_t count, float *panels);
// c[keys, n] = rows[keys, head_dim] * panels of n queries
void attention_scores(const attention_head *w, head_rows rows, const float *panels, int64_t keys, int64_t n,
                      float *c);
// Whether each of n queries from row i on sees all of `keys` from k0 on; not so when they do not fill a
// panel.
bool attention_whole(const attention_head *w, int64_t i, int64_t n, int64_t k0, int64_t keys);
// Else: the first and last key that each sees, counted from k0, for n queries padded to panels.
void attention_span(const attention_head *w, int64_t i, int64_t n, int64_t k0, int32_t *first, int32_t *last);

#endif
