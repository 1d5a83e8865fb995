// What forward and backward attention share: blocks of queries and keys, and how they lie in scratch.
#ifndef SOLAR_CPU_ATTENTION_H
#define SOLAR_CPU_ATTENTION_H

#include "cpu.h"

// Queries and keys of a block: a multiple of PANEL, small enough for the tiles to stay in cache.
enum { BLOCK = 64 };

// Keys that one query sees, relative to a block of keys: first <= j < end (empty: first >= end).
typedef struct span {
    int64_t first, end;
} span;

static inline int64_t attention_width(const attention *a) { return round_up(a->head_dim, PANEL); }

static inline int64_t first_key(const attention *a, int64_t b, int64_t i) {
    int64_t start = a->start ? a->start[b * a->rows + i] : 0;
    return a->window > 0 && i - a->window + 1 > start ? i - a->window + 1 : start;
}

static inline span visible(const attention *a, int64_t b, int64_t i, int64_t k0, int64_t keys) {
    int64_t first = first_key(a, b, i) - k0;
    return (span){first > 0 ? first : 0, smaller(i - k0 + 1, keys)};
}

// Zeroes a row of `keys` outside the span.
static inline void clear_outside(float *row, span s, int64_t keys) {
    for (int64_t j = 0; j < s.first; j++) row[j] = 0;
    for (int64_t j = s.end; j < keys; j++) row[j] = 0;
}

// Where the head `h` of row i of sequence b starts.
static inline int64_t head_at(const attention *a, int64_t b, int64_t i, int64_t h, int64_t ld) {
    return (b * a->rows + i) * ld + h * a->head_dim;
}

// Copies `count` rows from row i on as floats, `width` apart and padded with zeros (head_dim long each).
void attention_rows(const lanes *l, const attention *a, const void *base, int64_t ld, int64_t b, int64_t i,
                    int64_t h, int64_t count, float *to);
// Copies those rows as the panels of the transposed matrix [head_dim, count]; `rows` holds them as above.
void attention_panels(const lanes *l, const attention *a, const float *rows, int64_t count, float *to);
// C[m, count] = rows[m, head_dim] * panels, C rows BLOCK apart.
void attention_scores(const lanes *l, const attention *a, const float *rows, const float *panels, int64_t m,
                      int64_t count, float *c);
// C[m, head_dim] += A[m, k] * rows[k, width]; A(i,p) at at[i*a_row + p*a_col], C rows `width` apart.
void attention_mix(const lanes *l, const attention *a, const float *at, int64_t a_row, int64_t a_col,
                   const float *rows, int64_t m, int64_t k, float *c);

#endif
