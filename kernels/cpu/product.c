// Matrix products by our own loops: any shape, stride and thread count, with the same bits for the same
// call. Each element of C is one accumulator that runs over k in order (in blocks of K_BLOCK), so its
// value does not depend on how C is cut, and row i of a product does not depend on the number of rows.
// B is copied into panels, A too where it does not lie as the loops want it. What the copies hold, and the
// loops multiply, are units of 4 bytes: floats, or pairs of bf16 along k (k odd: the last one with zero).
#include <string.h>

#include "cpu.h"

enum {
    K_BLOCK = 384, // units of k
    N_BLOCK = 512, // columns of B in scratch: K_BLOCK x N_BLOCK units
    M_BLOCK = 144, // rows of A in scratch
    C_ROWS = 1024, // rows of fp32 C in scratch when C is bf16
    APART = 16,    // floats between strips, and between panels, so that their rows do not share cache sets
    AHEAD = 8,     // unit rows from the one being copied to the one being fetched
    DOT_ROWS = 3,  // up to so many rows of A, B^T is read once, where it lies
};

// How the loops see a product's operands.
typedef enum form {
    FLOATS,  // fp32
    WIDENED, // bf16, made fp32 when copied
    PAIRS,   // bf16, two at a time
} form;

// One piece of C, computed by one thread.
typedef struct piece {
    const product *p;
    const lanes *l;
    form form;
    int64_t i0, m, j0, n;
    float *a, *b, *c; // scratch
} piece;

static int64_t per_unit(form f) { return f == PAIRS ? 2 : 1; }
static int64_t units(const piece *w, int64_t k) { return pieces(k, per_unit(w->form)); }

// Whether rows of a stored operand that run along k can be read as units where they are.
static bool lies_as_units(const piece *w, const void *base, int64_t ld) {
    if (w->form == FLOATS) return true;
    return w->form == PAIRS && ld % 2 == 0 && w->p->k % 2 == 0 && (uintptr_t)base % sizeof(float) == 0;
}

// `count` rows of k elements that run along k, from element `at`, as rows of units K_BLOCK apart.
static void copy_rows(const piece *w, float *to, const void *base, int64_t at, int64_t ld, int64_t k,
                      int64_t count) {
    for (int64_t r = 0; r < count; r++, to += K_BLOCK, at += ld)
        if (w->form == PAIRS) {
            if (k % 2) to[k / 2] = 0;
            memcpy(to, (const bf16 *)base + at, (size_t)k * sizeof(bf16));
        } else {
            row_read(w->l, w->p->dt, to, base, at, k);
        }
}

// Rows that are copied next: they lie far apart, where no processor looks ahead.
static void fetch_row(const piece *w, const void *base, int64_t ld, int64_t k, int64_t i, int64_t n) {
    if (k >= w->p->k) return;
    const char *row = element(w->p->dt, base, k * ld + i);
    for (size_t at = 0; at < (size_t)n * dtype_size(w->p->dt); at += 64) __builtin_prefetch(row + at);
}

// Columns i..i+n-1 of unit row q (from k0 on) of a stored matrix whose rows lie across k.
static const float *unit_row(const piece *w, const void *base, int64_t ld, int64_t k0, int64_t q, int64_t i,
                             int64_t n, float *buffer) {
    int64_t ahead = k0 + (q + AHEAD) * per_unit(w->form);
    fetch_row(w, base, ld, ahead, i, n);
    if (w->form == PAIRS) fetch_row(w, base, ld, ahead + 1, i, n);
    if (w->form != PAIRS) return row_get(w->l, w->p->dt, base, (k0 + q) * ld + i, buffer, n);
    int64_t k = k0 + 2 * q;
    const bf16 *row = (const bf16 *)base + k * ld + i;
    w->l->interleave(buffer, row, k + 1 < w->p->k ? row + ld : NULL, n);
    return buffer;
}

static int64_t b_panel(int64_t k) { return k * PANEL + APART; }

// Panels of n columns of B, a row at a time.
static void panels_of_rows(const piece *w, int64_t k0, int64_t k, int64_t j, int64_t n) {
    for (int64_t q = 0; q < k; q++) {
        float row[N_BLOCK];
        const float *from = unit_row(w, w->p->b, w->p->ldb, k0, q, j, n, row);
        w->l->spread_panels(w->b + q * PANEL, b_panel(k), from, n);
    }
}

// PANEL columns of B^T, which are rows of the stored matrix.
static void panel_of_columns(const piece *w, float *panel, int64_t k0, int64_t k, int64_t j, int64_t n) {
    const product *p = w->p;
    int64_t per = per_unit(w->form), at = j * p->ldb + k0;
    if (lies_as_units(w, p->b, p->ldb)) {
        w->l->transpose(panel, PANEL, (const float *)p->b + at / per, p->ldb / per, k / per, n);
        return;
    }
    float rows[PANEL * K_BLOCK];
    copy_rows(w, rows, p->b, at, p->ldb, k, n);
    w->l->transpose(panel, PANEL, rows, K_BLOCK, units(w, k), n);
}

static void copy_b(const piece *w, int64_t k0, int64_t k, int64_t j0, int64_t n) {
    if (!w->p->trans_b) {
        panels_of_rows(w, k0, units(w, k), j0, n);
        return;
    }
    for (int64_t j = 0; j < n; j += PANEL)
        panel_of_columns(w, w->b + j / PANEL * b_panel(units(w, k)), k0, k, j0 + j, smaller(n - j, PANEL));
}

// Points t at rows i.. and columns k0.. of A, k long, copied if need be.
static void place_a(const piece *w, tile *t, int64_t k0, int64_t k, int64_t i) {
    const product *p = w->p;
    int64_t strip = w->l->strip, per = per_unit(w->form);
    if (!p->trans_a && lies_as_units(w, p->a, p->lda)) {
        t->a = (const float *)p->a + (i * p->lda + k0) / per;
        t->a_row = p->lda / per, t->a_col = 1, t->a_strip = strip * t->a_row;
        return;
    }
    t->a = w->a;
    if (!p->trans_a) {
        copy_rows(w, w->a, p->a, i * p->lda + k0, p->lda, k, t->m);
        t->a_row = K_BLOCK, t->a_col = 1, t->a_strip = strip * K_BLOCK;
        return;
    }
    // Stored rows are columns of A: spread each over the strips, so that the loops read A in order.
    t->a_row = 1, t->a_col = strip, t->a_strip = strip * t->k + APART;
    for (int64_t q = 0; q < t->k; q++) {
        float row[M_BLOCK];
        const float *from = unit_row(w, p->a, p->lda, k0, q, i, t->m, row);
        w->l->spread_strips(w->a + q * strip, t->a_strip, from, t->m);
    }
}

// Elements of k in a block. Blocks are about equal: a short last one costs as much traffic in C as a long
// one.
static int64_t k_block(const piece *w) {
    int64_t k = units(w, w->p->k);
    return round_up(pieces(k, pieces(k, K_BLOCK)), 8) * per_unit(w->form);
}

// Adds the product of columns k0.. of A and rows k0.. of B to N_BLOCK columns of C. A bf16 C is summed
// in scratch.
static void multiply_block(const piece *w, int64_t k0, int64_t i0, int64_t m, int64_t j0, int64_t n) {
    const product *p = w->p;
    bool whole = p->cdt == DT_F32;
    int64_t k = smaller(p->k - k0, k_block(w));
    tile t = {.n = n, .k = units(w, k), .b = w->b, .b_row = PANEL};
    t.b_panel = b_panel(t.k);
    t.add = k0 > 0 || p->accumulate;
    t.ldc = whole ? p->ldc : N_BLOCK;
    copy_b(w, k0, k, j0, n);
    for (int64_t i = 0; i < m; i += M_BLOCK) {
        t.m = smaller(m - i, M_BLOCK);
        t.c = whole ? (float *)p->c + (i0 + i) * p->ldc + j0 : w->c + i * N_BLOCK;
        place_a(w, &t, k0, k, i0 + i);
        multiply_units(w->l, w->form == PAIRS, &t);
    }
}

static void piece_blocks(const piece *w) {
    const product *p = w->p;
    bool half = p->cdt == DT_BF16;
    int64_t most = half ? C_ROWS : w->m;
    for (int64_t j = w->j0; j < w->j0 + w->n; j += N_BLOCK)
        for (int64_t i = w->i0; i < w->i0 + w->m; i += most) {
            int64_t n = smaller(w->j0 + w->n - j, N_BLOCK), m = smaller(w->i0 + w->m - i, most);
            for (int64_t r = 0; half && p->accumulate && r < m; r++)
                row_read(w->l, p->cdt, w->c + r * N_BLOCK, p->c, (i + r) * p->ldc + j, n);
            for (int64_t k = 0; k < p->k; k += k_block(w)) multiply_block(w, k, i, m, j, n);
            for (int64_t r = 0; half && r < m; r++)
                row_write(w->l, p->cdt, p->c, (i + r) * p->ldc + j, w->c + r * N_BLOCK, n);
        }
}

// Few rows against B^T: every element is one dot product of stored rows.
static void piece_dots(const piece *w) {
    const product *p = w->p;
    for (int64_t j = w->j0; j < w->j0 + w->n; j++) {
        double sum[DOT_ROWS] = {0};
        for (int64_t k = 0; k < p->k; k += TILE) {
            float row[TILE], other[TILE];
            int64_t n = smaller(p->k - k, TILE);
            const float *b = row_get(w->l, p->dt, p->b, j * p->ldb + k, row, n);
            for (int64_t i = 0; i < p->m; i++)
                sum[i] += w->l->dot(row_get(w->l, p->dt, p->a, i * p->lda + k, other, n), b, n);
        }
        for (int64_t i = 0; i < p->m; i++) {
            float c = 0;
            if (p->accumulate) row_read(w->l, p->cdt, &c, p->c, i * p->ldc + j, 1);
            c = (float)(c + sum[i]);
            row_write(w->l, p->cdt, p->c, i * p->ldc + j, &c, 1);
        }
    }
}

// Where C is cut between threads: squarish pieces, a few for each thread, of whole strips and panels.
static void cut(const cpu_device *c, const product *p, int64_t *rows, int64_t *cols) {
    *rows = p->m, *cols = p->n;
    int64_t wanted = c->threads > 1 && p->m * p->n * p->k > SMALL_WORK ? 3 * c->threads : 1;
    while (pieces(p->m, *rows) * pieces(p->n, *cols) < wanted) {
        bool by_rows = *rows > *cols && p->m > DOT_ROWS;
        int64_t *side = by_rows || *cols <= 2 * PANEL ? rows : cols;
        if (*side <= 2 * PANEL) return;
        *side = round_up(*side / 2, PANEL);
    }
}

static form form_of(const lanes *l, dtype dt) {
    if (dt == DT_F32) return FLOATS;
    return l->multiply_pairs ? PAIRS : WIDENED;
}

static void multiply_all(cpu_device *c, const product *p) {
    form form = form_of(c->lanes, p->dt);
    int64_t rows, cols;
    cut(c, p, &rows, &cols);
    int64_t a = M_BLOCK * K_BLOCK + pieces(M_BLOCK, c->lanes->strip) * APART;
    int64_t b = pieces(smaller(cols, N_BLOCK), PANEL) * b_panel(K_BLOCK);
    int64_t c_floats = p->cdt == DT_BF16 ? smaller(rows, C_ROWS) * N_BLOCK : 0;
    bool dots = p->trans_b && !p->trans_a && p->m <= DOT_ROWS;
    if (!dots && !cpu_scratch(c, a + b + c_floats)) return;
    int64_t across = pieces(p->n, cols), count = across * pieces(p->m, rows);
    PARALLEL(c, count > 1 ? SMALL_WORK + 1 : 0)
    for (int64_t at = 0; at < count; at++) {
        int64_t i = at / across * rows, j = at % across * cols;
        float *s = dots ? NULL : c->scratch[omp_get_thread_num()].at;
        piece w = {.p = p, .l = c->lanes, .form = form, .i0 = i, .j0 = j, .a = s};
        w.m = smaller(p->m - i, rows), w.n = smaller(p->n - j, cols);
        if (s) w.b = s + a, w.c = w.b + b;
        if (dots)
            piece_dots(&w);
        else
            piece_blocks(&w);
    }
}

static void clear_c(const product *p) {
    for (int64_t i = 0; i < p->m; i++)
        memset(element(p->cdt, p->c, i * p->ldc), 0, (size_t)p->n * dtype_size(p->cdt));
}

void cpu_product(device *d, const product *p) {
    cpu_device *c = cpu_of(d);
    if (p->m <= 0 || p->n <= 0) return;
    if (p->k <= 0) {
        if (!p->accumulate) clear_c(p);
    } else {
        multiply_all(c, p);
    }
}
