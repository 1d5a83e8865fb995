// The device on paper. Every op is a line: what it would compute and move.
#include <stdlib.h>
#include <string.h>

#include "../cpu/at_once.h"
#include "cost.h"

enum { ALIGN = 64 };

typedef struct plan_device {
    device base;
    cost_listener *listener;
    size_t allocated;
    uintptr_t next; // address to give out
} plan_device;

const char *op_kind_name(op_kind k) {
    static const char *const name[OP_KINDS] = {"products", "attention", "layers", "loss", "optimizer"};
    return name[k];
}

static plan_device *plan_of(device *d) { return (plan_device *)d; }

static void tell(device *d, op_cost c) {
    cost_listener *l = plan_of(d)->listener;
    if (l) l->op(l, &c);
}

static void tell_bytes(device *d, op_kind kind, dtype dt, double bytes) {
    tell(d, (op_cost){.kind = kind, .dt = dt, .bytes = bytes});
}

static double size(dtype dt, int64_t n) { return (double)dtype_size(dt) * (double)n; }

// ---- memory

static err *plan_alloc(device *d, size_t bytes, void **out) {
    plan_device *p = plan_of(d);
    *out = (void *)p->next; // NOLINT(performance-no-int-to-ptr): never read
    p->next += (bytes + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
    p->allocated += bytes;
    return NULL;
}

static void plan_free(device *d, void *p) {
    (void)d;
    (void)p;
}

static void plan_upload(device *d, void *dst, const void *host, size_t bytes) {
    (void)d;
    (void)dst;
    (void)host;
    (void)bytes;
}

static void plan_download(device *d, void *host, const void *src, size_t bytes) {
    (void)d;
    (void)src;
    memset(host, 0, bytes);
}

// What is queued may be for memory that is an address as well.
static void plan_fetch(device *d, void *host, const void *src, size_t bytes) {
    plan_upload(d, host, src, bytes);
}

static void plan_copy(device *d, void *dst, const void *src, size_t bytes) {
    (void)dst;
    (void)src;
    tell_bytes(d, OP_LAYER, DT_F32, 2 * (double)bytes);
}

static void plan_zero(device *d, void *dst, size_t bytes) {
    (void)dst;
    tell_bytes(d, OP_OPTIMIZER, DT_F32, (double)bytes);
}

static err *plan_sync(device *d) {
    (void)d;
    return NULL;
}

static void plan_close(device *d) { free(d); }

// ---- products and attention

static void plan_product(device *d, const struct product *p) {
    double m = (double)p->m, n = (double)p->n, k = (double)p->k, flop = 2 * m * n * k;
    double bytes = size(p->dt, p->m * p->k) + size(p->dt, p->n * p->k) +
                   size(p->cdt, p->m * p->n) * (p->accumulate ? 2 : 1);
    tell(d, (op_cost){OP_PRODUCT, p->dt, flop, flop, bytes});
}

// Pairs of query and key of one head of one sequence: query i sees min(i+1, window) keys.
static double visible_pairs(const struct attention *a) {
    double first = (double)a->q_start, end = first + (double)a->q_rows, w = (double)a->window;
    if (a->window == 0 || w >= end) return (end * (end + 1) - first * (first + 1)) / 2;
    double short_end = first > w ? first : w; // queries before it see everything before them
    return (short_end * (short_end + 1) - first * (first + 1)) / 2 + (end - short_end) * w;
}

static double all_pairs(const struct attention *a) { return (double)a->q_rows * (double)a->rows; }

static double rows_of(const struct attention *a, int64_t heads) {
    return size(a->dt, a->batch * heads * a->head_dim) * (double)a->rows;
}

// Each pair costs head_dim multiplications and additions in each of `products` products.
static void tell_attention(device *d, const struct attention *a, double products, double bytes) {
    double each = 2 * products * (double)(a->batch * a->heads * a->head_dim);
    tell(d, (op_cost){OP_ATTENTION, a->dt, each * visible_pairs(a), each * all_pairs(a), bytes});
}

static void plan_attention(device *d, const struct attention *a) {
    tell_attention(d, a, 2, 2 * rows_of(a, a->heads) + 2 * rows_of(a, a->kv_heads));
}

// Scores again, then the gradients of values, of scores, of queries and of keys.
static void plan_attention_grad(device *d, const struct attention *a) {
    tell_attention(d, a, 5, 4 * rows_of(a, a->heads) + 4 * rows_of(a, a->kv_heads));
}

// ---- what only moves bytes

static void plan_bias(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n) {
    (void)y;
    (void)ld;
    (void)b;
    tell_bytes(d, OP_LAYER, dt, 2 * size(dt, T * n));
}

static void plan_bias_grad(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                           int64_t n) {
    (void)gdt;
    (void)db;
    (void)dy;
    (void)ld;
    tell_bytes(d, OP_LAYER, dt, size(dt, T * n));
}

static void plan_embed(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T,
                       int64_t h, int64_t first, int64_t rows) {
    (void)y;
    (void)table;
    (void)tokens;
    (void)first;
    (void)rows;
    tell_bytes(d, OP_LAYER, dt, 2 * size(dt, T * h));
}

static void plan_embed_grad(device *d, dtype dt, dtype gdt, void *dtable, const void *dy,
                            const int32_t *tokens, int32_t *chain, int64_t T, int64_t h, int64_t first,
                            int64_t rows) {
    (void)dtable;
    (void)chain;
    (void)dy;
    (void)tokens;
    (void)first;
    (void)rows;
    tell_bytes(d, OP_LAYER, dt, size(dt, T * h) + 2 * size(gdt, T * h));
}

static void plan_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x,
                         const void *delta, const void *w, int64_t T, int64_t h, float eps) {
    (void)y;
    (void)rstd;
    (void)sum;
    (void)x;
    (void)w;
    (void)eps;
    tell_bytes(d, OP_LAYER, dt, (delta ? 4 : 2) * size(dt, T * h));
}

static void plan_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                              const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                              int64_t T, int64_t h) {
    (void)gdt;
    (void)dx;
    (void)dw;
    (void)dy;
    (void)x;
    (void)w;
    (void)rstd;
    (void)partial;
    tell_bytes(d, OP_LAYER, dt, (residual ? 4 : 3) * size(dt, T * h));
}

static void plan_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
                      const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse) {
    (void)x;
    (void)ld;
    (void)pos;
    (void)cos;
    (void)sin;
    (void)inverse;
    tell_bytes(d, OP_LAYER, dt, 2 * size(dt, T * heads * head_dim));
}

static void plan_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f) {
    (void)y;
    (void)gu;
    tell_bytes(d, OP_LAYER, dt, 3 * size(dt, T * f));
}

static void plan_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T,
                             int64_t f) {
    (void)dgu;
    (void)dy;
    (void)gu;
    tell_bytes(d, OP_LAYER, dt, 5 * size(dt, T * f));
}

static void plan_xent_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                            int64_t T, int64_t v, int64_t first) {
    (void)stats;
    (void)logits;
    (void)ld;
    (void)targets;
    (void)first;
    tell_bytes(d, OP_LOSS, DT_F32, 4 * (double)(T * v));
}

static void plan_xent_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                            const int32_t *targets, int64_t T) {
    (void)loss;
    (void)lse;
    (void)stats;
    (void)targets;
    tell_bytes(d, OP_LOSS, DT_F32, 12 * (double)(parts * T));
}

static void plan_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                           const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first) {
    (void)grad;
    (void)logits;
    (void)ld;
    (void)lse;
    (void)targets;
    (void)scale;
    (void)first;
    tell_bytes(d, OP_LOSS, dt, 4 * (double)(T * v) + size(dt, T * v));
}

static void plan_add(device *d, dtype dt, void *y, const void *x, int64_t n) {
    (void)y;
    (void)x;
    tell_bytes(d, OP_LAYER, dt, 3 * size(dt, n));
}

static void plan_cast(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n) {
    (void)dst;
    (void)src;
    tell_bytes(d, OP_LAYER, from, size(to, n) + size(from, n));
}

static void plan_sum_rows(device *d, const struct row_sum *s) {
    tell_bytes(d, OP_LAYER, s->dt, size(s->dt, s->count * s->n) + size(s->out_dt, s->n));
}

static void plan_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n) {
    (void)out;
    (void)x;
    tell_bytes(d, OP_OPTIMIZER, dt, size(dt, n));
}

static void plan_sum(device *d, double *out, const float *x, int64_t n) { plan_sumsq(d, out, DT_F32, x, n); }

// Gradient read; weights (of bf16 both halves) and both moments read and written.
static void plan_adamw(device *d, const struct adamw *a) {
    double moments = 4 * (double)moments_size(a->form) * (double)a->n;
    if (a->form == MOMENTS_INT8) moments += 16 * (double)moments_blocks(a->n, a->lead);
    tell_bytes(d, OP_OPTIMIZER, DT_F32, 2 * size(DT_F32, a->n) + size(a->gdt, a->n) + moments);
}

static const ops plan_ops = {
    .name = "plan",
    .host_memory = true, // nothing needs to be staged: there is nothing
    .imaginary = true,
    .alloc = plan_alloc,
    .free = plan_free,
    .upload = plan_upload,
    .download = plan_download,
    .copy = plan_copy,
    .zero = plan_zero,
    .sync = plan_sync,
    .failure = plan_sync,
    .close = plan_close,
    AT_ONCE,
    .fetch = plan_fetch,
    .store = plan_upload,
    .product = plan_product,
    .bias = plan_bias,
    .bias_grad = plan_bias_grad,
    .embed = plan_embed,
    .embed_grad = plan_embed_grad,
    .rmsnorm = plan_rmsnorm,
    .rmsnorm_grad = plan_rmsnorm_grad,
    .rope = plan_rope,
    .attention = plan_attention,
    .attention_grad = plan_attention_grad,
    .swiglu = plan_swiglu,
    .swiglu_grad = plan_swiglu_grad,
    .xent_stats = plan_xent_stats,
    .xent_merge = plan_xent_merge,
    .xent_grad = plan_xent_grad,
    .add = plan_add,
    .cast = plan_cast,
    .sum_rows = plan_sum_rows,
    .sumsq = plan_sumsq,
    .sum = plan_sum,
    .adamw = plan_adamw,
};

err *plan_device_open(cost_listener *l, device **out) {
    plan_device *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return err_new(ERR_SYSTEM, "out of memory for a device on paper");
    *p = (plan_device){.base = {&plan_ops}, .listener = l, .next = (uintptr_t)1 << 44};
    *out = &p->base;
    return NULL;
}

size_t plan_device_allocated(const device *d) { return ((const plan_device *)d)->allocated; }
