// Opening the CPU device, its memory, and the table of its ops.
#include <stdlib.h>
#include <string.h>

#include "at_once.h"
#include "cpu.h"

enum { ALIGN = 64 };

void cpu_fail(cpu_device *c, err *e) { c->failed = err_first(c->failed, e); }

bool cpu_scratch(cpu_device *c, int64_t floats) {
    size_t bytes = (size_t)round_up(floats * 4, ALIGN);
    for (int t = 0; t < c->threads; t++) {
        thread_scratch *s = &c->scratch[t];
        if (s->bytes >= bytes) continue;
        free(s->at);
        s->at = aligned_alloc(ALIGN, bytes);
        s->bytes = s->at ? bytes : 0;
        if (s->at) continue;
        cpu_fail(c, err_new(ERR_SYSTEM, "no memory for %zu bytes of scratch a thread", bytes));
        return false;
    }
    return true;
}

void row_read(const lanes *l, dtype dt, float *to, const void *base, int64_t i, int64_t n) {
    if (dt == DT_F32)
        memcpy(to, (const float *)base + i, (size_t)n * 4);
    else
        l->to_float(to, (const bf16 *)base + i, n);
}

void row_write(const lanes *l, dtype dt, void *base, int64_t i, const float *from, int64_t n) {
    if (dt == DT_F32)
        memcpy((float *)base + i, from, (size_t)n * 4);
    else
        l->from_float((bf16 *)base + i, from, n);
}

static err *cpu_alloc(device *d, size_t bytes, void **out) {
    (void)d;
    size_t rounded = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    *out = rounded < bytes ? NULL : aligned_alloc(ALIGN, rounded);
    return *out ? NULL : err_new(ERR_SYSTEM, "no memory for %zu bytes", bytes);
}

static void cpu_free(device *d, void *p) {
    (void)d;
    free(p);
}

static void cpu_copy(device *d, void *dst, const void *src, size_t bytes) {
    (void)d;
    if (bytes) memmove(dst, src, bytes);
}

static void cpu_zero(device *d, void *dst, size_t bytes) {
    (void)d;
    if (bytes) memset(dst, 0, bytes);
}

static err *cpu_sync(device *d) {
    err *e = cpu_of(d)->failed;
    cpu_of(d)->failed = NULL;
    return e;
}

static void cpu_close(device *d) {
    if (!d) return;
    cpu_device *c = cpu_of(d);
    for (int t = 0; c->scratch && t < c->threads; t++) free(c->scratch[t].at);
    free(c->scratch);
    err_free(c->failed);
    free(c);
}

static const ops cpu_ops = {
    .name = "cpu",
    .host_memory = true,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .sync = cpu_sync,
    .failure = cpu_sync,
    .close = cpu_close,
    AT_ONCE,
    .fetch = cpu_copy,
    .store = cpu_copy,
    .product = cpu_product,
    .bias = cpu_bias,
    .bias_grad = cpu_bias_grad,
    .embed = cpu_embed,
    .embed_grad = cpu_embed_grad,
    .rmsnorm = cpu_rmsnorm,
    .rmsnorm_grad = cpu_rmsnorm_grad,
    .rope = cpu_rope,
    .attention = cpu_attention,
    .attention_grad = cpu_attention_grad,
    .swiglu = cpu_swiglu,
    .swiglu_grad = cpu_swiglu_grad,
    .xent_stats = cpu_xent_stats,
    .xent_merge = cpu_xent_merge,
    .xent_grad = cpu_xent_grad,
    .add = cpu_add,
    .cast = cpu_cast,
    .sum_rows = cpu_sum_rows,
    .sumsq = cpu_sumsq,
    .sum = cpu_sum,
    .adamw = cpu_adamw,
};

err *cpu_open(int threads, device **out) {
    err *e = NULL;
    *out = NULL;
    cpu_device *c = calloc(1, sizeof *c);
    if (!c) return err_new(ERR_SYSTEM, "no memory to open the CPU device");
    c->base.ops = &cpu_ops;
    if (threads < 1) FAIL(ERR_USAGE, "the CPU device needs at least 1 thread, not %d", threads);
    c->threads = threads;
    c->lanes = lanes_best();
    c->scratch = calloc((size_t)threads, sizeof *c->scratch);
    if (!c->scratch) FAIL(ERR_SYSTEM, "no memory to open the CPU device with %d threads", threads);
    *out = &c->base;
    return NULL;
done:
    cpu_close(&c->base);
    return e;
}
