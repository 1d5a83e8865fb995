// The CPU device behind include/ops.h: shared by the files of this folder only.
#ifndef SOLAR_CPU_H
#define SOLAR_CPU_H

#include <math.h>
#include <omp.h>

#include "lanes.h"
#include "ops.h"

// Scratch that grows to the largest need seen, one piece a thread.
typedef struct thread_scratch {
    float *at;
    size_t bytes;
} thread_scratch;

typedef struct cpu_device {
    device base;
    const lanes *lanes;
    int threads;
    thread_scratch *scratch; // [threads]
    err *failed;             // first failure since the last sync
} cpu_device;

static inline cpu_device *cpu_of(device *d) { return (cpu_device *)d; }

// Keeps the first failure for the next sync.
void cpu_fail(cpu_device *c, err *e);
// Makes every thread's scratch at least `floats` large; false (and the failure kept) without memory.
bool cpu_scratch(cpu_device *c, int64_t floats);

// A loop over independent pieces, split among the device's threads when `work` (about the number of
// elements touched) is worth waking them.
enum { SMALL_WORK = 1 << 14 };
static inline bool shared_out(const cpu_device *c, int64_t work) {
    return c->threads > 1 && work > SMALL_WORK;
}
#define PRAGMA(x) _Pragma(#x)
#define PARALLEL(c, work)                                                                                    \
    PRAGMA(omp parallel for schedule(static) num_threads((c)->threads) if (shared_out(c, work)))

// ---- rows of either element type, seen as floats a tile at a time. For DT_F32 these are the array
// itself, for DT_BF16 a copy in `buffer`.
enum { TILE = 512 };

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

static inline void *element(dtype dt, const void *base, int64_t i) {
    return (char *)base + (size_t)i * dtype_size(dt);
}

static inline const float *row_get(const lanes *l, dtype dt, const void *base, int64_t i, float *buffer,
                                   int64_t n) {
    if (dt == DT_F32) return (const float *)base + i;
    l->to_float(buffer, (const bf16 *)base + i, n);
    return buffer;
}

// Where to compute elements i.. of an array that row_put will finish.
static inline float *row_place(dtype dt, void *base, int64_t i, float *buffer) {
    return dt == DT_F32 ? (float *)base + i : buffer;
}

static inline void row_put(const lanes *l, dtype dt, void *base, int64_t i, const float *from, int64_t n) {
    if (dt == DT_BF16) l->from_float((bf16 *)base + i, from, n);
}

static inline void multiply_units(const lanes *l, bool pairs, const tile *t) {
    if (pairs)
        l->multiply_pairs(t);
    else
        l->multiply(t);
}

// Copies n elements as floats.
void row_read(const lanes *l, dtype dt, float *to, const void *base, int64_t i, int64_t n);
void row_write(const lanes *l, dtype dt, void *base, int64_t i, const float *from, int64_t n);

// ---- the ops, by file
void cpu_product(device *d, const product *p); // product.c

void cpu_bias(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n); // linear.c
void cpu_bias_grad(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                   int64_t n);

void cpu_embed(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T, int64_t h,
               int64_t first, int64_t rows); // embed.c
void cpu_embed_grad(device *d, dtype dt, dtype gdt, void *dtable, const void *dy, const int32_t *tokens,
                    int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows);

void cpu_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                 const void *w, int64_t T, int64_t h, float eps); // norm.c
void cpu_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                      const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                      int64_t T, int64_t h);

void cpu_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
              const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse); // elementwise.c
void cpu_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f);
void cpu_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T, int64_t f);
void cpu_add(device *d, dtype dt, void *y, const void *x, int64_t n);
void cpu_cast(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n);
void cpu_sum_rows(device *d, const row_sum *s);

void cpu_attention(device *d, const attention *a);      // attention.c
void cpu_attention_grad(device *d, const attention *a); // attention_grad.c

void cpu_xent_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                    int64_t T, int64_t v, int64_t first); // xent.c
void cpu_xent_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                    const int32_t *targets, int64_t T);
void cpu_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                   const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first);

void cpu_sum(device *d, double *out, const float *x, int64_t n); // optimizer.c
void cpu_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n);
void cpu_adamw(device *d, const adamw *a);

#endif
