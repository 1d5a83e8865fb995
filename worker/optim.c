#include "optim.h"

int optim_kinds(dtype dt) { return dt == DT_F32 ? OPTIM_MASTER : OPTIM_KINDS; }

const char *optim_suffix(optim_kind k) {
    static const char *const suffix[OPTIM_KINDS] = {".exp_avg", ".exp_avg_sq", ".master"};
    return suffix[k];
}

optim_copy optim_copy_of(const part *p, const weight *w, optim_kind k) {
    (void)p;
    return (optim_copy){.kind = k, .dt = DT_F32, .n = w->own_n, .bytes = (size_t)w->own_n * 4};
}

// ---- the master: first all bf16 weights, then all other halves

static void take_master(const part *p, const weight *w, char *to) {
    size_t half = (size_t)w->own_n * sizeof(bf16);
    p->dev->ops->fetch(p->dev, to, (const bf16 *)w->w + w->own_at, half);
    p->dev->ops->fetch(p->dev, to + half, w->rest, half);
}

static void read_master(const optim_copy *c, const char *from, int64_t first, int64_t n, float *to) {
    const bf16 *near = (const bf16 *)(const void *)from + first;
    const int16_t *rest = (const int16_t *)(const void *)from + c->n + first;
    for (int64_t i = 0; i < n; i++) to[i] = float_join(near[i], rest[i]);
}

// ---- all

void optim_take(const part *p, const weight *w, const optim_copy *c, char *to) {
    if (c->kind == OPTIM_MASTER)
        take_master(p, w, to);
    else
        p->dev->ops->fetch(p->dev, to, c->kind == OPTIM_M ? w->m : w->v, c->bytes);
}

const char *optim_read(const optim_copy *c, const char *from, int64_t first, int64_t n, char *buffer) {
    if (c->kind != OPTIM_MASTER) return from + (size_t)first * dtype_size(c->dt);
    read_master(c, from, first, n, (float *)(void *)buffer);
    return buffer;
}
