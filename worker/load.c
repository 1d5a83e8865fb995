#include "load.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

typedef struct loading {
    const want *w;
    atomic_llong placed; // elements
} loading;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Elements first..first+n-1 of row `row` of the tensor, as far as they are wanted.
static int64_t place_run(const want *w, int64_t row, int64_t first, int64_t n, dtype from, const char *data) {
    int64_t lo = larger(first, w->col0), hi = smaller(first + n, w->col0 + w->cols);
    if (row < w->row0 || row >= w->row0 + w->rows || lo >= hi) return 0;
    int64_t at = (row - w->row0) * w->cols + lo - w->col0; // in the slice
    int64_t begin = larger(at, w->at), end = smaller(at + hi - lo, w->at + w->n);
    if (begin >= end) return 0;
    st_convert(w->to, (char *)w->dst + (size_t)(begin - w->at) * dtype_size(w->to), from,
               data + (size_t)(lo - first + begin - at) * dtype_size(from), end - begin);
    return end - begin;
}

// Where whole rows are stored and wanted, rows that follow each other are one run.
static bool whole_rows(const want *w, const stored *t) {
    return t->cols == w->shape[1] && w->cols == w->shape[1];
}

static int64_t place_rows(const want *w, const stored *t, int64_t at, int64_t n, const char *data) {
    want flat = *w;
    flat.row0 = 0, flat.rows = 1, flat.col0 = w->row0 * w->cols, flat.cols = w->rows * w->cols;
    return place_run(&flat, 0, t->row0 * t->cols + at, n, t->dt, data);
}

// Elements of whole rows that are all wanted and need no conversion are read to where they go.
static char *place_directly(void *context, const range *r, size_t from, size_t bytes) {
    loading *l = context;
    const want *w = l->w;
    const stored *t = (const stored *)(const void *)r->in; // its first member
    size_t element = dtype_size(t->dt);
    int64_t n = (int64_t)(bytes / element);
    int64_t at = (t->row0 - w->row0) * w->cols + t->at + (int64_t)((r->at + from) / element) - w->at;
    if (t->dt != w->to || !whole_rows(w, t) || at < 0 || at + n > w->n) return NULL;
    atomic_fetch_add(&l->placed, n);
    return (char *)w->dst + (size_t)at * element;
}

static void place(void *context, const range *r, size_t from, const char *data, size_t bytes) {
    loading *l = context;
    const stored *t = (const stored *)(const void *)r->in; // its first member
    size_t element = dtype_size(t->dt);
    int64_t at = t->at + (int64_t)((r->at + from) / element), end = at + (int64_t)(bytes / element),
            placed = 0;
    if (whole_rows(l->w, t)) {
        placed = place_rows(l->w, t, at, end - at, data);
        at = end;
    }
    for (int64_t n; at < end; at += n, data += (size_t)n * element) {
        int64_t col = at % t->cols;
        n = smaller(t->cols - col, end - at);
        placed += place_run(l->w, t->row0 + at / t->cols, t->col0 + col, n, t->dt, data);
    }
    atomic_fetch_add(&l->placed, placed);
}

// Whether a range may hold something wanted: by its rows and its slice's columns.
static bool touches(const want *w, const stored *t, uint64_t at) {
    size_t element = dtype_size(t->dt);
    int64_t bytes = (int64_t)(t->in.bytes - at < RANGE ? t->in.bytes - at : RANGE);
    int64_t first = t->at + (int64_t)(at / element), last = first + bytes / (int64_t)element - 1;
    int64_t row = t->row0 + first / t->cols, end = t->row0 + last / t->cols;
    int64_t from = w->row0 + w->at / w->cols, to = w->row0 + (w->at + w->n - 1) / w->cols;
    return row <= to && end >= from && t->col0 < w->col0 + w->cols && w->col0 < t->col0 + t->cols;
}

static int64_t list_ranges(const want *w, const stored *t, int count, range *list) {
    int64_t n = 0;
    for (int i = 0; i < count; i++)
        for (uint64_t at = 0; at < t[i].in.bytes; at += RANGE) {
            if (!touches(w, &t[i], at)) continue;
            if (list) list[n] = (range){&t[i].in, at};
            n++;
        }
    return n;
}

err *load_tensor(manifest *m, const want *w, int threads) {
    err *e = NULL;
    const stored *t;
    range *list = NULL;
    loading l = {.w = w};
    int count = manifest_find(m, w->of, &t);
    if (w->n == 0) return NULL;
    if (!count) FAIL(ERR_INPUT, "it holds no tensor %s", w->of);
    if (t->shape[0] != w->shape[0] || t->shape[1] != w->shape[1])
        FAIL(ERR_INPUT, "tensor %s is [%lld, %lld], expected [%lld, %lld]", w->of, (long long)t->shape[0],
             (long long)t->shape[1], (long long)w->shape[0], (long long)w->shape[1]);
    int64_t n = list_ranges(w, t, count, NULL);
    if (!(list = malloc(((size_t)n + 1) * sizeof *list)))
        FAIL(ERR_SYSTEM, "out of memory for reading %s", w->of);
    list_ranges(w, t, count, list);
    TRY(manifest_read(m, list, n, threads, &(range_use){place, place_directly, &l}));
    if (atomic_load(&l.placed) != w->n)
        FAIL(ERR_MISMATCH, "its pieces of tensor %s hold %lld of the %lld elements wanted", w->of,
             (long long)atomic_load(&l.placed), (long long)w->n);
done:
    free(list);
    return e;
}
