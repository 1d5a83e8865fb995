#include "model.h"

#include <math.h>

#include "rows.h"

// ---- small words for what every step below says

static void *row(const run *r, void *base, int64_t ld) {
    return (char *)base + (size_t)(r->first * ld) * dtype_size(r->p->shape.dt);
}

static const ops *op(const run *r) { return r->p->dev->ops; }

// y = x w^T (+ b): forward of a linear layer. The bias of a row-parallel layer is added after the sum.
static void forward(const run *r, const linear *l, void *x, void *y, bool bias) {
    dtype dt = r->p->shape.dt;
    int64_t T = rows_all(r);
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
    int64_t T = rows_all(r);
    device *d = r->p->dev;
    op(r)->product(d, &(product){.dt = dt,
                                 .cdt = r->p->shape.grads,
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
    if (l->b) op(r)->bias_grad(d, dt, r->p->shape.grads, l->db, dy, l->out, T, l->out);
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

// Of every row of the run, where documents are masked: the first row that it sees; else NULL.
static const int32_t *starts(const run *r) {
    const part *p = r->p;
    return p->doc_start ? p->doc_start + (r->inputs - p->inputs) : NULL;
}

static const int32_t *positions(const run *r) {
    const part *p = r->p;
    return p->doc_positions ? p->doc_positions + (r->inputs - p->inputs) : p->positions + r->first;
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
                       .start = starts(r),
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
    op(r)->rope(p->dev, p->shape.dt, qkv, ld, positions(r), p->cos, p->sin, rows_all(r),
                p->heads + p->kv_heads, d, inverse);
}

// ---- forward

err *model_embed(const run *r) {
    const part *p = r->p;
    void *x = row(r, r->s->acts[0].x, p->spec->hidden);
    op(r)->embed(p->dev, p->shape.dt, rows_share(r, x), p->embed, r->inputs + r->first, rows_all(r),
                 p->spec->hidden, p->vocab_first, p->vocab);
    return rows_sum(r, x);
}

// Attention of the queries, keys and values that are there.
static void attention_core(const run *r, const layer *l, const layer_acts *a) {
    attention att = attention_of(r, l, a);
    op(r)->attention(r->p->dev, &att);
}

// y = x w^T (+ b), x and y between the products
static err *row_parallel(const run *r, const linear *l, void *x, void *y) {
    err *e = NULL;
    const part *p = r->p;
    forward(r, l, x, rows_share(r, y), false);
    TRY(rows_sum(r, y));
    if (l->b) op(r)->bias(p->dev, p->shape.dt, y, l->out, l->b, rows_own(r), l->out);
done:
    return e;
}

// delta = attention block of the normed input
static err *attention_block(const run *r, const layer *l, const layer_acts *a, void *delta) {
    err *e = NULL;
    void *n1, *qkv = row(r, a->qkv, l->qkv.out);
    TRY(rows_gather(r, row(r, a->n1, l->qkv.in), &n1));
    forward(r, &l->qkv, n1, qkv, true);
    rope(r, qkv, false);
    attention_core(r, l, a);
    TRY(row_parallel(r, &l->o, row(r, a->att, l->o.in), delta));
done:
    return e;
}

// act = silu(gate) * up of the normed input
static err *ffn_inner(const run *r, const layer *l, const layer_acts *a) {
    err *e = NULL;
    const part *p = r->p;
    void *n2, *gu = row(r, a->gu, 2 * p->ffn);
    TRY(rows_gather(r, row(r, a->n2, p->spec->hidden), &n2));
    forward(r, &l->gate_up, n2, gu, true);
    op(r)->swiglu(p->dev, p->shape.dt, row(r, a->act, p->ffn), gu, rows_all(r), p->ffn);
done:
    return e;
}

static err *ffn_block(const run *r, const layer *l, const layer_acts *a, void *delta) {
    err *e = ffn_inner(r, l, a);
    return e ? e : row_parallel(r, &l->down, row(r, a->act, r->p->ffn), delta);
}

// n = norm(sum), sum = x + delta
static void add_and_norm(const run *r, const norm *n, void *y, float *rstd, void *sum, void *x, void *delta) {
    const part *p = r->p;
    int64_t h = p->spec->hidden;
    op(r)->rmsnorm(p->dev, p->shape.dt, row(r, y, h), rstd + r->first, delta ? row(r, sum, h) : NULL,
                   row(r, x, h), delta, n->w, rows_own(r), h, (float)p->spec->norm_eps);
}

err *model_layers(const run *r) {
    err *e = NULL;
    part *p = r->p;
    int64_t h = p->spec->hidden, n = run_elements(r);
    void *delta = p->work.delta;
    layer_acts *a = r->s->acts;
    for (int i = 0; i < r->v->layers; i++, a++) {
        const layer *l = &p->layer[r->v->layer0 + i];
        // The sum that ends layer i-1 is formed together with the norm that begins layer i.
        add_and_norm(r, &l->n1, a->n1, a->rstd1, a->x, i ? a[-1].x2 : a->x, i ? delta : NULL);
        TRY(attention_block(r, l, a, delta));
        add_and_norm(r, &l->n2, a->n2, a->rstd2, a->x2, a->x, delta);
        TRY(ffn_block(r, l, a, delta));
    }
    void *out = row(r, r->s->out, h);
    op(r)->copy(p->dev, out, row(r, a[-1].x2, h), (size_t)n * dtype_size(p->shape.dt));
    op(r)->add(p->dev, p->shape.dt, out, delta, n);
done:
    return err_wrap(e, "forward");
}

// ---- backward

// Gradients of a row-parallel layer: dy lies between the products, dx does not.
static err *row_parallel_grad(const run *r, const linear *l, const void *x, void *dy, void *dx) {
    err *e = NULL;
    const part *p = r->p;
    void *all;
    if (l->b) op(r)->bias_grad(p->dev, p->shape.dt, p->shape.grads, l->db, dy, l->out, rows_own(r), l->out);
    TRY(rows_gather(r, dy, &all));
    backward(r, &(linear){l->in, l->out, l->w, NULL, l->dw, NULL}, x, all, dx);
done:
    return e;
}

// Gradients of a column-parallel layer behind a norm, and of the norm: grad += gradient through both.
static err *normed_grad(const run *r, const linear *l, const norm *n, void *normed, const void *x,
                        const float *rstd, const void *dy, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    const scratch *w = &p->work;
    void *all;
    TRY(rows_gather(r, normed, &all));
    backward(r, l, all, dy, rows_share(r, w->dn));
    TRY(rows_sum(r, w->dn));
    op(r)->rmsnorm_grad(p->dev, p->shape.dt, p->shape.grads, grad, n->dw, grad, w->dn, x, n->w, rstd,
                        w->norm_partial, rows_own(r), l->in);
done:
    return e;
}

// grad: gradient of x2 on entry, of x on return.
static err *attention_grad(const run *r, const layer *l, const layer_acts *a, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    const scratch *w = &p->work;
    int64_t d = p->spec->head_dim;
    attention att = attention_of(r, l, a);
    TRY(row_parallel_grad(r, &l->o, a->att, grad, w->datt));
    att.d_out = w->datt;
    att.dq = w->dqkv;
    att.dk = (char *)w->dqkv + (size_t)(p->heads * d) * dtype_size(p->shape.dt);
    att.dv = (char *)w->dqkv + (size_t)((p->heads + p->kv_heads) * d) * dtype_size(p->shape.dt);
    att.delta = w->delta_att;
    op(r)->attention_grad(p->dev, &att);
    rope(r, w->dqkv, true);
    TRY(normed_grad(r, &l->qkv, &l->n1, a->n1, a->x, a->rstd1, w->dqkv, grad));
done:
    return e;
}

// grad: gradient of the layer's output on entry, of x2 on return.
static err *ffn_grad(const run *r, const layer *l, const layer_acts *a, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    const scratch *w = &p->work;
    TRY(row_parallel_grad(r, &l->down, a->act, grad, w->dact));
    op(r)->swiglu_grad(p->dev, p->shape.dt, w->dgu, w->dact, a->gu, rows_all(r), p->ffn);
    TRY(normed_grad(r, &l->gate_up, &l->n2, a->n2, a->x2, a->rstd2, w->dgu, grad));
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
        TRY(ffn_inner(r, l, a));
    } else {
        attention_core(r, l, a);
        add_and_norm(r, &l->n2, a->n2, a->rstd2, NULL, a->x2, NULL);
        op(r)->swiglu(p->dev, p->shape.dt, a->act, a->gu, rows_all(r), p->ffn);
    }
done:
    return e;
}

err *model_layers_grad(const run *r, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    for (int i = r->v->layers - 1; i >= 0; i--) {
        const layer *l = &p->layer[r->v->layer0 + i];
        TRY(restore(r, l, &r->s->acts[i]));
        TRY(ffn_grad(r, l, &r->s->acts[i], grad));
        TRY(attention_grad(r, l, &r->s->acts[i], grad));
        if (r->layer_done) TRY(r->layer_done(r->who, r->v->layer0 + i));
    }
done:
    return err_wrap(e, "backward");
}

err *model_embed_grad(const run *r, void *grad) {
    err *e = NULL;
    const part *p = r->p;
    void *all;
    TRY(rows_gather(r, grad, &all));
    op(r)->embed_grad(p->dev, p->shape.dt, p->shape.grads, p->d_embed, all, r->inputs, p->work.chain,
                      rows_all(r), p->spec->hidden, p->vocab_first, p->vocab);
done:
    return e;
}
