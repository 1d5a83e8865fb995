// Matrix products by our own loops: any shape, stride and thread count, with the same bits for the same
// call. Each element of C is one accumulator that runs over k in order (in blocks of K_BLOCK), so its
// value does not depend on how C is cut, and row i of a product does not depend on the number of rows.
// B is copied into panels, A too where it is not plain fp32 rows; bf16 becomes fp32 in these copies.
#include <string.h>

#include "cpu.h"

enum {
    K_BLOCK = 256,
    N_BLOCK = 512, // columns of B in scratch: K_BLOCK x N_BLOCK floats
    M_BLOCK = 144, // rows of A in scratch
    C_ROWS = 1024, // rows of C between two copies of B, and of fp32 C in scratch when C is bf16
    DOT_ROWS = 3,  // up to so many rows of A, B^T is read once, where it lies
};

// One piece of C, computed by one thread.
typedef struct piece {
    const product *p;
    const lanes *l;
    int64_t i0, m, j0, n;
    float *a, *b, *c; // scratch
} piece;

static void panel_of_rows(const piece *w, float *panel, int64_t k0, int64_t k, int64_t j, int64_t n) {
    const product *p = w->p;
    for (int64_t q = 0; q < k; q++, panel += PANEL) {
        row_read(w->l, p->dt, panel, p->b, (k0 + q) * p->ldb + j, n);
        for (int64_t x = n; x < PANEL; x++) panel[x] = 0;
    }
}

// PANEL columns of B^T, which are rows of the stored matrix.
static void panel_of_columns(const piece *w, float *panel, int64_t k0, int64_t k, int64_t j, int64_t n) {
    const product *p = w->p;
    if (p->dt == DT_F32) {
        w->l->transpose_panel(panel, (const float *)p->b + j * p->ldb + k0, p->ldb, k, n);
        return;
    }
    float rows[PANEL * K_BLOCK];
    for (int64_t x = 0; x < n; x++) row_read(w->l, p->dt, rows + x * K_BLOCK, p->b, (j + x) * p->ldb + k0, k);
    w->l->transpose_panel(panel, rows, K_BLOCK, k, n);
}

static void copy_b(const piece *w, int64_t k0, int64_t k, int64_t j0, int64_t n) {
    for (int64_t j = 0; j < n; j += PANEL) {
        int64_t cols = smaller(n - j, PANEL);
        if (w->p->trans_b)
            panel_of_columns(w, w->b + j * k, k0, k, j0 + j, cols);
        else
            panel_of_rows(w, w->b + j * k, k0, k, j0 + j, cols);
    }
}

// Points t at rows i.. of A, copied if need be.
static void place_a(const piece *w, tile *t, int64_t k0, int64_t i) {
    const product *p = w->p;
    int64_t strip = w->l->strip;
    if (!p->trans_a && p->dt == DT_F32) {
        t->a = (const float *)p->a + i * p->lda + k0;
        t->a_row = p->lda, t->a_col = 1, t->a_strip = strip * p->lda;
        return;
    }
    t->a = w->a;
    if (!p->trans_a) {
        for (int64_t r = 0; r < t->m; r++)
            row_read(w->l, p->dt, w->a + r * K_BLOCK, p->a, (i + r) * p->lda + k0, t->k);
        t->a_row = K_BLOCK, t->a_col = 1, t->a_strip = strip * K_BLOCK;
        return;
    }
    // Stored rows are columns of A: spread each over the strips, so that the loops read A in order.
    t->a_row = 1, t->a_col = strip, t->a_strip = strip * t->k;
    for (int64_t q = 0; q < t->k; q++) {
        float row[M_BLOCK];
        const float *from = row_get(w->l, p->dt, p->a, (k0 + q) * p->lda + i, row, t->m);
        w->l->spread_strips(w->a + q * strip, t->a_strip, from, t->m);
    }
}

// Blocks of k are about equal: a short last one costs as much traffic in C as a long one.
static int64_t k_block(int64_t k) { return round_up(pieces(k, pieces(k, K_BLOCK)), 8); }

// Adds the product of columns k0.. of A and rows k0.. of B to N_BLOCK columns of C. A bf16 C is summed
// in scratch.
static void multiply_block(const piece *w, int64_t k0, int64_t i0, int64_t m, int64_t j0, int64_t n) {
    const product *p = w->p;
    bool whole = p->cdt == DT_F32;
    tile t = {.n = n, .k = smaller(p->k - k0, k_block(p->k)), .b = w->b, .b_row = PANEL};
    t.b_panel = t.k * PANEL;
    t.add = k0 > 0 || p->accumulate;
    t.ldc = whole ? p->ldc : N_BLOCK;
    copy_b(w, k0, t.k, j0, n);
    for (int64_t i = 0; i < m; i += M_BLOCK) {
        t.m = smaller(m - i, M_BLOCK);
        t.c = whole ? (float *)p->c + (i0 + i) * p->ldc + j0 : w->c + i * N_BLOCK;
        place_a(w, &t, k0, i0 + i);
        w->l->multiply(&t);
    }
}

static void piece_blocks(const piece *w) {
    const product *p = w->p;
    bool half = p->cdt == DT_BF16;
    for (int64_t j = w->j0; j < w->j0 + w->n; j += N_BLOCK)
        for (int64_t i = w->i0; i < w->i0 + w->m; i += C_ROWS) {
            int64_t n = smaller(w->j0 + w->n - j, N_BLOCK), m = smaller(w->i0 + w->m - i, C_ROWS);
            for (int64_t r = 0; half && p->accumulate && r < m; r++)
                row_read(w->l, p->cdt, w->c + r * N_BLOCK, p->c, (i + r) * p->ldc + j, n);
            for (int64_t k = 0; k < p->k; k += k_block(p->k)) multiply_block(w, k, i, m, j, n);
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

static void product_own(cpu_device *c, const product *p) {
    int64_t rows, cols;
    cut(c, p, &rows, &cols);
    int64_t a = M_BLOCK * K_BLOCK, b = K_BLOCK * smaller(round_up(cols, PANEL), N_BLOCK);
    int64_t c_floats = p->cdt == DT_BF16 ? smaller(rows, C_ROWS) * N_BLOCK : 0;
    bool dots = p->trans_b && !p->trans_a && p->m <= DOT_ROWS;
    if (!dots && !cpu_scratch(c, a + b + c_floats)) return;
    int64_t across = pieces(p->n, cols), count = across * pieces(p->m, rows);
    PARALLEL(c, count > 1 ? SMALL_WORK + 1 : 0)
    for (int64_t at = 0; at < count; at++) {
        int64_t i = at / across * rows, j = at % across * cols;
        float *s = dots ? NULL : c->scratch[omp_get_thread_num()].at;
        piece w = {p, c->lanes, i, smaller(p->m - i, rows), j, smaller(p->n - j, cols), s, NULL, NULL};
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
    } else if (onednn_takes(c->dnn, p)) {
        err *e = onednn_product(c->dnn, p);
        if (e) cpu_fail(c, e);
    } else {
        product_own(c, p);
    }
}
