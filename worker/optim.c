#include "optim.h"

#include <stdlib.h>
#include <string.h>

int optim_kinds(dtype dt) { return dt == DT_F32 ? OPTIM_MASTER : OPTIM_KINDS; }

const char *optim_suffix(optim_kind k) {
    static const char *const suffix[OPTIM_KINDS] = {".exp_avg", ".exp_avg_sq", ".master"};
    return suffix[k];
}

dtype optim_dtype(const part_shape *s, optim_kind k) {
    return k != OPTIM_MASTER && s->moments == MOMENTS_BF16 ? DT_BF16 : DT_F32;
}

// Where numbers of 4 bytes may lie behind n codes.
static size_t behind_codes(int64_t n) { return (size_t)(n + 3) / 4 * 4; }

optim_copy optim_copy_of(const part *p, const weight *w, optim_kind k) {
    optim_copy c = {.kind = k, .form = p->shape.moments, .n = w->own_n, .lead = w->lead};
    c.bytes = (size_t)c.n * (k == OPTIM_MASTER ? 4 : moments_size(c.form));
    if (k != OPTIM_MASTER && c.form == MOMENTS_INT8)
        c.bytes = behind_codes(c.n) + (size_t)moments_blocks(c.n, c.lead) * sizeof(float);
    return c;
}

// Moments lie on the device, or in the host's memory.
static void take(const part *p, void *to, const void *from, size_t bytes) {
    if (p->shape.offload)
        memcpy(to, from, bytes);
    else
        p->dev->ops->fetch(p->dev, to, from, bytes);
}

static void put(const part *p, void *to, const void *from, size_t bytes) {
    if (p->shape.offload)
        memcpy(to, from, bytes);
    else
        p->dev->ops->upload(p->dev, to, from, bytes);
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

// ---- codes of moments: first all codes, then the largest of every block

static int64_t block_of(int64_t i, int64_t lead) { return i < lead ? 0 : 1 + (i - lead) / MOMENT_BLOCK; }

static void take_codes(const part *p, const weight *w, const optim_copy *c, char *to) {
    bool second = c->kind == OPTIM_V;
    take(p, to, second ? w->v : w->m, (size_t)c->n);
    take(p, to + behind_codes(c->n), second ? w->v_largest : w->m_largest, c->bytes - behind_codes(c->n));
}

static void read_codes(const optim_copy *c, const char *from, int64_t first, int64_t n, float *to) {
    const uint8_t *code = (const uint8_t *)from + first;
    const float *largest = (const float *)(const void *)(from + behind_codes(c->n));
    for (int64_t i = 0; i < n; i++)
        to[i] = moment_decode(code[i], largest[block_of(first + i, c->lead)], c->kind == OPTIM_V);
}

// The codes of values take their place: a code lies in front of the values that are still to be read.
static void put_codes(const part *p, const weight *w, bool second, float *values, float *largest) {
    uint8_t *code = (uint8_t *)values;
    int64_t n = w->own_n;
    for (int64_t i = 0; i < n; i++) {
        float *most = &largest[block_of(i, w->lead)];
        *most = fmaxf(*most, fabsf(values[i]));
    }
    for (int64_t i = 0; i < n; i++)
        code[i] = moment_nearest(values[i], largest[block_of(i, w->lead)], second);
    put(p, second ? w->v : w->m, code, (size_t)n);
    put(p, second ? w->v_largest : w->m_largest, largest,
        (size_t)moments_blocks(n, w->lead) * sizeof *largest);
}

// ---- all

void optim_take(const part *p, const weight *w, const optim_copy *c, char *to) {
    if (c->kind == OPTIM_MASTER)
        take_master(p, w, to);
    else if (c->form == MOMENTS_INT8)
        take_codes(p, w, c, to);
    else
        take(p, to, c->kind == OPTIM_M ? w->m : w->v, c->bytes);
}

const char *optim_read(const optim_copy *c, const char *from, int64_t first, int64_t n, char *buffer) {
    float *to = (float *)(void *)buffer;
    if (c->kind != OPTIM_MASTER && c->form != MOMENTS_INT8)
        return from + (size_t)first * moments_size(c->form);
    if (c->kind == OPTIM_MASTER)
        read_master(c, from, first, n, to);
    else
        read_codes(c, from, first, n, to);
    return buffer;
}

err *optim_put(const part *p, const weight *w, optim_kind k, float *values) {
    const ops *o = p->dev->ops;
    moments_form form = p->shape.moments;
    bf16 *half = (bf16 *)values;
    if (form == MOMENTS_INT8) {
        float *largest = calloc((size_t)moments_blocks(w->own_n, w->lead) + 1, sizeof *largest);
        if (!largest) return err_new(ERR_SYSTEM, "out of memory for moments of %s", w->row->name);
        put_codes(p, w, k == OPTIM_V, values, largest);
        err *e = o->sync(p->dev);
        free(largest);
        return e;
    }
    for (int64_t i = 0; i < w->own_n && form == MOMENTS_BF16; i++) half[i] = bf16_from_float(values[i]);
    put(p, k == OPTIM_M ? w->m : w->v, values, (size_t)w->own_n * moments_size(form));
    return o->sync(p->dev);
}
