#include "model.h"

#include <math.h>

// ---- small words for what every step below says

static int64_t run_rows(const run *r) { return r->batch * (r->rows - r->first); }

static void *row(const run *r, void *base, int64_t ld) {
    return (char *)base + (size_t)(r->first * ld) * dtype_size(r->p->shape.dt);
}

static const ops *op(const run *r) { return r->p->dev->ops; }

// y = x w^T (+ b): forward of a linear layer. The bias of a row-parallel layer is added after the sum.
static void forward(const run *r, const linear *l, void *x, void *y, bool bias) {
    dtype dt = r->p->shape.dt;
    int64_t T = run_rows(r);
    op(r)->product(r->p->dev, &(product){.dt = dt,
                                         .cdt = dt,
                                         .trans_b = true,
                                         .m = T,
                                         .n = l->out,
                                         .k = l->in,
                                         .a = x,
                                         .lda = l->in,
                                         .b = l->w,
                                         .ldb = l->in,
                                         .c = y,
                                         .ldc = l->out});
    if (bias && l->b) op(r)->bias(r->p->dev, dt, y, l->out, l->b, T, l->out);
}

// dw += dy^T x; db += sum dy; dx = dy w (dx NULL: not wanted)
static void backward(const run *r, const linear *l, const void *x, const void *dy, void *dx) {
    dtype dt = r->p->shape.dt;
    int64_t T = run_rows(r);
    device *d = r->p->dev;
    op(r)->product(d, &(product){.dt = dt,
                                 .cdt = DT_F32,
                                 .trans_a = true,
                                 .accumulate = true,
                                 .m = l->out,
                                 .n = l->in,
                                 .k = T,
                                 .a = dy,
                                 .lda = l->out,
                                 .b = x,
                                 .ldb = l->in,
                                 .c = l->dw,
                                 .ldc = l->in});
    if (l->b) op(r)->bias_grad(d, dt, l->db, dy, l->out, T, l->out);
    if (!dx) return;
    op(r)->product(d, &(product){.dt = dt,
                                 .cdt = dt,
                                 .m = T,
                                 .n = l->in,
                                 .k = l->out,
                                 .a = dy,
                                 .lda = l->out,
                                 .b = l->w,
                                 .ldb = l->in,
                                 .c = dx,
                                 .ldc = l->in});
}

static err *sum_over_tensor_ranks(const run *r, void *x) {
    return comm_sum(r->c, &r->c->tp, r->p->shape.dt, x, run_rows(r) * r->p->spec->hidden);
}

static attention attention_of(const run *r, const layer *l, const layer_acts *a) {
    const part *p = r->p;
    int64_t d = p->spec->head_dim, ld = (p->heads + 2 * p->kv_heads) * d;
    size_t w = dtype_size(p->shape.dt);
    return (attention){.dt = p->shape.dt,
                       .batch = r->batch,
                       .rows = r->rows,
                       .q_start = r->first,
                       .q_rows = r->rows - r->first,
                       .heads = p->heads,
                       .kv_heads = p->kv_heads,
                       .head_dim = d,
                       .window = l->window,
                       .scale = (float)(1 / sqrt((double)d)),
                       .q = a->qkv,
                       .k = (char *)a->qkv + (size_t)(p->heads * d) * w,
                       .v = (char *)a->qkv + (size_t)((p->heads + p->kv_heads) * d) * w,
                       .ld = ld,
                       .out = a->att,
                       .ld_out = p->heads * d,
                       .lse = a->lse};
}

static void rope(const run *r, void *qkv, bool inverse) {
    const part *p = r->p;
    int64_t d = p->spec->head_dim, ld = (p->heads + 2 * p->kv_heads) * d;
    op(r)->rope(p->dev, p->shape.dt, qkv, ld, p->positions + r->first, p->cos, p->sin, run_rows(r),
                p->heads + p->kv_heads, d, inverse);
}

// ---- forward

err *model_embed(const run *r) {
    const part *p = r->p;
    void *x = row(r, r->s->acts[0].x, p->spec->hidden);
    op(r)->embed(p->dev, p->shape.dt, x, p->embed, r->inputs + r->first, run_rows(r), p->spec->hidden,
                 p->vocab_first, p->vocab);
    return sum_over_tensor_ranks(r, x);
}

// Attention of the queries, keys and values that are there.
static void attention_core(const run *r, const layer *l, const layer_acts *a) {
    attention att = attention_of(r, l, a);
    op(r)->attention(r->p->dev, &att);
}

// delta = attention block of the normed input
static err *attention_block(const run *r, const layer *l, const layer_acts *a, void *delta) {
    err *e = NULL;
    const part *p = r->p;
    int64_t h = p->spec->hidden;
    void *qkv = row(r, a->qkv, l->qkv.out);
    forward(r, &l->qkv, row(r, a->n1, h), qkv, true);
    rope(r, qkv, false);
    attention_core(r, l, a);
    forward(r, &l->o, row(r, a->att, l->o.in), delta, false);
    TRY(sum_over_tensor_ranks(r, delta));
    if (l->o.b) op(r)->bias(p->dev, p->shape.dt, delta, h, l->o.b, run_rows(r), h);
done:
    return e;
}

// act = silu(gate) * up of the normed input
static void ffn_inner(const run *r, const layer *l, const layer_acts *a) {
    const part *p = r->p;
    void *gu = row(r, a->gu, 2 * p->ffn);
    forward(r, &l->gate_up, row(r, a->n2, p->spec->hidden), gu, true);
    op(r)->swiglu(p->dev, p->shape.dt, row(r, a->act, p->ffn), gu, run_rows(r), p->ffn);
}

static err *ffn_block(const run *r, const layer *l, const layer_acts *a, void *delta) {
    err *e = NULL;
    const part *p = r->p;
    int64_t h = p->spec->hidden;
    ffn_inner(r, l, a);
    forward(r, &l->down, row(r, a->act, p->ffn), delta, false);
    TRY(sum_over_tensor_ranks(r, delta));
    if (l->down.b) op(r)->bias(p->dev, p->shape.dt, delta, h, l->down.b, run_rows(r), h);
done:
    return e;
}

// n = norm(sum), sum = x + delta
static void add_and_norm(const run *r, const norm *n, void *y, float *rstd, void *sum, void *x, void *delta) {
    const part *p = r->p;
    int64_t h = p->spec->hidden;
    op(r)->rmsnorm(p->dev, p->shape.dt, row(r, y, h), rstd + r->first, delta ? row(r, sum, h) : NULL,
                   row(r, x, h), delta, n->w, run_rows(r), h, (float)p->spec->norm_eps);
}

err *model_layers(const run *r) {
    err *e = NULL;
    part *p = r->p;
    int64_t h = p->spec->hidden;
    void *delta = p->work.delta;
    layer_acts *a = r->s->acts;
    for (int i = 0; i < p->layers; i++, a++) {
        const layer *l = &p->layer[i];
        // The sum that ends layer i-1 is formed together with the norm that begins layer i.
        add_and_norm(r, &l->n1, a->n1, a->rstd1, a->x, i ? a[-1].x2 : a->x, i ? delta : NULL);
        TRY(attention_block(r, l, a, delta));
        add_and_norm(r, &l->n2, a->n2, a->rstd2, a->x2, a->x, delta);
        TRY(ffn_block(r, l, a, delta));
    }
    void *out = row(r, r->s->out, h);
    op(r)->copy(p->dev, out, row(r, a[-1].x2, h), (size_t)(run_rows(r) * h) * dtype_size(p->shape.dt));
    op(r)->add(p->dev, p->shape.dt, out, delta, run_rows(r) * h);
done:
    return err_wrap(e, "forward");
}

// ---- backward

// grad: gradient of x2 on entry, of x on return.
static err *attention_grad(const run *r, const layer *l, const layer_acts *a, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    const scratch *w = &p->work;
    int64_t h = p->spec->hidden, d = p->spec->head_dim;
    attention att = attention_of(r, l, a);
    if (l->o.b) op(r)->bias_grad(p->dev, p->shape.dt, l->o.db, grad, h, run_rows(r), h);
    backward(r, &(linear){l->o.in, l->o.out, l->o.w, NULL, l->o.dw, NULL}, a->att, grad, w->datt);
    att.d_out = w->datt;
    att.dq = w->dqkv;
    att.dk = (char *)w->dqkv + (size_t)(p->heads * d) * dtype_size(p->shape.dt);
    att.dv = (char *)w->dqkv + (size_t)((p->heads + p->kv_heads) * d) * dtype_size(p->shape.dt);
    att.delta = w->delta_att;
    op(r)->attention_grad(p->dev, &att);
    rope(r, w->dqkv, true);
    backward(r, &l->qkv, a->n1, w->dqkv, w->dn);
    TRY(sum_over_tensor_ranks(r, w->dn));
    op(r)->rmsnorm_grad(p->dev, p->shape.dt, grad, l->n1.dw, grad, w->dn, a->x, l->n1.w, a->rstd1,
                        w->norm_partial, run_rows(r), h);
done:
    return e;
}

// grad: gradient of the layer's output on entry, of x2 on return.
static err *ffn_grad(const run *r, const layer *l, const layer_acts *a, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    const scratch *w = &p->work;
    int64_t h = p->spec->hidden, T = run_rows(r);
    if (l->down.b) op(r)->bias_grad(p->dev, p->shape.dt, l->down.db, grad, h, T, h);
    backward(r, &(linear){l->down.in, l->down.out, l->down.w, NULL, l->down.dw, NULL}, a->act, grad, w->dact);
    op(r)->swiglu_grad(p->dev, p->shape.dt, w->dgu, w->dact, a->gu, T, p->ffn);
    backward(r, &l->gate_up, a->n2, w->dgu, w->dn);
    TRY(sum_over_tensor_ranks(r, w->dn));
    op(r)->rmsnorm_grad(p->dev, p->shape.dt, grad, l->n2.dw, grad, w->dn, a->x2, l->n2.w, a->rstd2,
                        w->norm_partial, T, h);
done:
    return e;
}

// Makes again what a layer did not keep, by the operations of the forward pass on the same bits.
static err *restore(const run *r, const layer *l, const layer_acts *a) {
    err *e = NULL;
    const part *p = r->p;
    void *delta = p->work.delta;
    if (l->recompute == RECOMPUTE_NONE) return NULL;
    add_and_norm(r, &l->n1, a->n1, a->rstd1, NULL, a->x, NULL);
    if (l->recompute == RECOMPUTE_FULL) {
        TRY(attention_block(r, l, a, delta));
        add_and_norm(r, &l->n2, a->n2, a->rstd2, a->x2, a->x, delta);
        ffn_inner(r, l, a);
    } else {
        attention_core(r, l, a);
        add_and_norm(r, &l->n2, a->n2, a->rstd2, NULL, a->x2, NULL);
        op(r)->swiglu(p->dev, p->shape.dt, a->act, a->gu, run_rows(r), p->ffn);
    }
done:
    return e;
}

err *model_layers_grad(const run *r, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    for (int i = p->layers - 1; i >= 0; i--) {
        TRY(restore(r, &p->layer[i], &r->s->acts[i]));
        TRY(ffn_grad(r, &p->layer[i], &r->s->acts[i], grad));
        TRY(attention_grad(r, &p->layer[i], &r->s->acts[i], grad));
    }
done:
    return err_wrap(e, "backward");
}

err *model_embed_grad(const run *r, const void *grad) {
    const part *p = r->p;
    op(r)->embed_grad(p->dev, p->shape.dt, p->d_embed, grad, r->inputs, run_rows(r), p->spec->hidden,
                      p->vocab_first, p->vocab);
    return NULL;
}
