// Reading tensors: bytes as they are, or slices converted to fp32 or bf16.
#include <stdlib.h>
#include <string.h>

#include "fsutil.h"
#include "st_set.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors files are little-endian, and so must we be");

enum { SCRATCH = 1 << 20 };

err *st_read(const st_set *s, const st_tensor *t, uint64_t offset, void *dst, uint64_t bytes) {
    if (offset > t->bytes || bytes > t->bytes - offset)
        return err_new(ERR_RUNTIME, "tensor %s: asked for bytes %llu..%llu of %llu", t->name,
                       (unsigned long long)offset, (unsigned long long)(offset + bytes),
                       (unsigned long long)t->bytes);
    const st_file *f = &s->file[t->file];
    return err_wrap(pread_all(f->fd, dst, (size_t)bytes, t->offset + offset, f->path), "tensor %s", t->name);
}

// ---- conversion

// IEEE half to float, exact: subnormals are scaled, Inf and NaN keep their meaning.
static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu, bits;
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float element(dtype from, const char *src, int64_t i) {
    uint16_t half;
    float value;
    if (from == DT_F32) {
        memcpy(&value, src + 4 * i, 4);
        return value;
    }
    memcpy(&half, src + 2 * i, 2);
    return from == DT_BF16 ? bf16_to_float(half) : half_to_float(half);
}

void st_convert(dtype to, void *to_data, dtype from, const void *from_data, int64_t n) {
    char *dst = to_data;
    const char *src = from_data;
    if (to == from) {
        memcpy(dst, src, (size_t)n * dtype_size(to));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float value = element(from, src, i);
        bf16 rounded = bf16_from_float(value);
        memcpy(dst + (size_t)i * dtype_size(to), to == DT_F32 ? (void *)&value : (void *)&rounded,
               dtype_size(to));
    }
}

// ---- slices

typedef struct reader {
    const st_set *set;
    const st_tensor *t;
    dtype to;
    char *scratch;
} reader;

// n consecutive elements from element `at` of the tensor.
static err *read_run(const reader *r, int64_t at, int64_t n, char *dst) {
    size_t width = dtype_size(r->t->dt);
    if (r->t->dt == r->to) return st_read(r->set, r->t, (uint64_t)at * width, dst, (uint64_t)n * width);
    for (int64_t done = 0, step; done < n; done += step) {
        step = n - done < (int64_t)(SCRATCH / width) ? n - done : (int64_t)(SCRATCH / width);
        err *e = st_read(r->set, r->t, (uint64_t)(at + done) * width, r->scratch, (uint64_t)step * width);
        if (e) return e;
        st_convert(r->to, dst + (size_t)done * dtype_size(r->to), r->t->dt, r->scratch, step);
    }
    return NULL;
}

// Columns of narrow rows: whole rows are read, many at a time, and the columns picked out.
static err *read_columns(const reader *r, int64_t width, int64_t row0, int64_t rows, int64_t col0,
                         int64_t cols, char *dst) {
    size_t size = dtype_size(r->t->dt), row_bytes = (size_t)width * size,
           out_bytes = (size_t)cols * dtype_size(r->to);
    for (int64_t done = 0, step; done < rows; done += step) {
        step = (int64_t)(SCRATCH / row_bytes) < rows - done ? (int64_t)(SCRATCH / row_bytes) : rows - done;
        err *e = st_read(r->set, r->t, (uint64_t)(row0 + done) * row_bytes, r->scratch,
                         (uint64_t)step * row_bytes);
        if (e) return e;
        for (int64_t i = 0; i < step; i++)
            st_convert(r->to, dst + (size_t)(done + i) * out_bytes, r->t->dt,
                       r->scratch + (size_t)i * row_bytes + (size_t)col0 * size, cols);
    }
    return NULL;
}

static err *read_rows(const reader *r, int64_t width, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                      char *dst) {
    if (cols == width) return read_run(r, row0 * width, rows * cols, dst);
    if ((uint64_t)width * dtype_size(r->t->dt) <= SCRATCH)
        return read_columns(r, width, row0, rows, col0, cols, dst);
    err *e = NULL;
    for (int64_t i = 0; i < rows && !e; i++)
        e = read_run(r, (row0 + i) * width + col0, cols, dst + (size_t)(i * cols) * dtype_size(r->to));
    return e;
}

static bool within(int64_t start, int64_t count, int64_t size) {
    return start >= 0 && count >= 0 && start <= size && count <= size - start;
}

err *st_read_slice(const st_set *s, const st_tensor *t, int64_t row0, int64_t rows, int64_t col0,
                   int64_t cols, dtype to, void *dst) {
    int64_t height = t->ndim > 0 ? t->shape[0] : 1, width = t->ndim > 1 ? t->shape[1] : 1;
    if (t->ndim > 2)
        return err_new(ERR_INPUT, "tensor %s has %d dimensions, expected at most 2", t->name, t->ndim);
    if (to == DT_F16 || !within(row0, rows, height) || !within(col0, cols, width))
        return err_new(ERR_RUNTIME, "tensor %s: asked for rows %lld+%lld of %lld, columns %lld+%lld of %lld",
                       t->name, (long long)row0, (long long)rows, (long long)height, (long long)col0,
                       (long long)cols, (long long)width);
    if (rows == 0 || cols == 0) return NULL;
    reader r = {s, t, to, malloc(SCRATCH)};
    if (!r.scratch) return err_new(ERR_SYSTEM, "no memory to read tensor %s", t->name);
    err *e = read_rows(&r, width, row0, rows, col0, cols, dst);
    free(r.scratch);
    return e;
}
