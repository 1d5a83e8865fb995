// The last stage: final norm, head and loss. Logits exist only a chunk of rows at a time.
#include "rows.h"

err *model_final_norm(const run *r) {
    part *p = r->p;
    int64_t h = p->spec->hidden;
    size_t at = (size_t)(r->first * h) * dtype_size(p->shape.dt);
    p->dev->ops->rmsnorm(p->dev, p->shape.dt, (char *)r->s->final + at, r->s->rstd + r->first, NULL,
                         (char *)r->s->out + at, NULL, p->fnorm.w, rows_own(r), h, (float)p->spec->norm_eps);
    return NULL;
}

// Logits of rows at.. of x.
static void logits_of(const run *r, const void *rows, int64_t at, int64_t count) {
    part *p = r->p;
    dtype dt = p->shape.dt;
    int64_t h = p->spec->hidden;
    const char *x = (const char *)rows + (size_t)(at * h) * dtype_size(dt);
    p->dev->ops->product(p->dev, &(product){.dt = dt,
                                            .cdt = DT_F32,
                                            .trans_b = true,
                                            .m = count,
                                            .n = p->vocab,
                                            .k = h,
                                            .a = x,
                                            .lda = h,
                                            .b = p->head.w,
                                            .ldb = h,
                                            .c = p->work.logits,
                                            .ldc = p->vocab});
}

err *model_logits(const run *r, int64_t at, int64_t count) {
    logits_of(r, r->s->final, at, count);
    return NULL;
}

// Logits of a chunk and, from every vocabulary part's statistics, its loss and log-sum-exp.
static err *chunk_loss(const run *r, const void *rows, int64_t at, int64_t count) {
    err *e = NULL;
    part *p = r->p;
    const scratch *w = &p->work;
    const ops *k = p->dev->ops;
    const int32_t *targets = r->targets + at;
    logits_of(r, rows, at, count);
    k->xent_stats(p->dev, w->stats, w->logits, p->vocab, targets, count, p->vocab, p->vocab_first);
    TRY(comm_gather(r->c, &r->c->tp, w->stats, w->all_stats, count * 3));
    k->xent_merge(p->dev, w->loss + at, w->lse, w->all_stats, r->c->tp.size, targets, count);
done:
    return e;
}

static int64_t chunk_at(const run *r, int64_t at, int64_t T) {
    return T - at < r->p->chunk ? T - at : r->p->chunk;
}

err *model_loss(const run *r) {
    err *e = NULL;
    int64_t T = r->batch * r->rows;
    void *rows;
    TRY(rows_gather(r, r->s->final, &rows));
    for (int64_t at = 0; at < T; at += r->p->chunk) TRY(chunk_loss(r, rows, at, chunk_at(r, at, T)));
done:
    return err_wrap(e, "loss");
}

// Gradient of one chunk of logits back to head and normed rows: its share of dn.
static void chunk_grad(const run *r, const void *rows, float scale, int64_t at, int64_t count) {
    part *p = r->p;
    const scratch *w = &p->work;
    const ops *k = p->dev->ops;
    dtype dt = p->shape.dt;
    int64_t h = p->spec->hidden;
    size_t skip = (size_t)(at * h) * dtype_size(dt);
    k->xent_grad(p->dev, dt, w->dlogits, w->logits, p->vocab, w->lse, r->targets + at, scale, count, p->vocab,
                 p->vocab_first);
    k->product(p->dev, &(product){.dt = dt,
                                  .cdt = p->shape.grads,
                                  .trans_a = true,
                                  .accumulate = true,
                                  .m = p->vocab,
                                  .n = h,
                                  .k = count,
                                  .a = w->dlogits,
                                  .lda = p->vocab,
                                  .b = (const char *)rows + skip,
                                  .ldb = h,
                                  .c = p->head.dw,
                                  .ldc = h});
    k->product(p->dev, &(product){.dt = dt,
                                  .cdt = dt,
                                  .m = count,
                                  .n = h,
                                  .k = p->vocab,
                                  .a = w->dlogits,
                                  .lda = p->vocab,
                                  .b = p->head.w,
                                  .ldb = h,
                                  .c = (char *)rows_share(r, w->dn) + skip,
                                  .ldc = h});
}

err *model_head_grad(const run *r, float scale, void *grad) {
    err *e = NULL;
    part *p = r->p;
    int64_t h = p->spec->hidden, T = r->batch * r->rows;
    void *rows;
    TRY(rows_gather(r, r->s->final, &rows));
    for (int64_t at = 0; at < T; at += p->chunk) {
        int64_t count = chunk_at(r, at, T);
        TRY(chunk_loss(r, rows, at, count));
        chunk_grad(r, rows, scale, at, count);
    }
    TRY(rows_sum(r, p->work.dn));
    p->dev->ops->rmsnorm_grad(p->dev, p->shape.dt, p->shape.grads, grad, p->fnorm.dw, NULL, p->work.dn,
                              r->s->out, p->fnorm.w, r->s->rstd, p->work.norm_partial, rows_own(r), h);
done:
    return err_wrap(e, "loss");
}
