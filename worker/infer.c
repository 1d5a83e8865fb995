#include "infer.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_INFER = 12, TAG_LOGITS = 13 };

static int stage_rank(const part *p, int stage) { return mesh_rank(&p->m, p->m.d, stage % p->m.pp, p->m.t); }

static err *receive_input(const run *r, void *x) {
    part *p = r->p;
    transfer in;
    err *e = comm_receive(r->c, COMM_FORWARD, stage_rank(p, r->v->index - 1), TAG_INFER, p->shape.dt, x,
                          run_elements(r), &in);
    return e ? e : comm_finish(r->c, &in);
}

static err *send_output(const run *r, const void *x) {
    part *p = r->p;
    transfer out;
    err *e = comm_send(r->c, COMM_FORWARD, stage_rank(p, r->v->index + 1), TAG_INFER, p->shape.dt, x,
                       run_elements(r), &out);
    return e ? e : comm_finish(r->c, &out);
}

static err *forward_stage(const run *r) {
    err *e = NULL;
    size_t skip = (size_t)(r->first * r->p->spec->hidden) * dtype_size(r->p->shape.dt);
    if (r->v->first)
        TRY(model_embed(r));
    else
        TRY(receive_input(r, (char *)r->s->acts[0].x + skip));
    TRY(model_layers(r));
    if (r->v->last)
        TRY(model_final_norm(r));
    else
        TRY(send_output(r, (char *)r->s->out + skip));
done:
    return e;
}

err *infer_forward(part *p, comm *c, const token_rows *t, int64_t batch, int64_t rows, int64_t first,
                   run *out) {
    err *e = NULL;
    part_upload_rows(p, t, batch * rows);
    for (int i = 0; i < p->vstages; i++) {
        const vstage *v = &p->vstage[i];
        *out = (run){.p = p,
                     .c = c,
                     .v = v,
                     .s = &v->slot[0],
                     .batch = batch,
                     .rows = rows,
                     .first = first,
                     .inputs = p->inputs,
                     .targets = p->targets};
        TRY(forward_stage(out));
    }
done:
    return e;
}

err *infer_loss(part *p, comm *c, const token_rows *t, int64_t batch, int64_t rows, loss_sum *sum) {
    err *e = NULL;
    run r;
    double loss;
    TRY(infer_forward(p, c, t, batch, rows, 0, &r));
    if (!p->last) goto done;
    TRY(model_loss(&r));
    p->dev->ops->sum(p->dev, p->work.sums, p->work.loss, batch * rows);
    p->dev->ops->download(p->dev, &loss, p->work.sums, sizeof loss);
    TRY(p->dev->ops->sync(p->dev));
    if (p->m.t != 0) goto done;
    sum->loss += loss;
    sum->predicted += (double)samples_predicted(t->target, batch * rows);
done:
    return err_wrap(e, "evaluating");
}

// Vocabulary parts of the last stage to its tensor rank 0, in rank order.
static err *collect_parts(part *p, comm *c, float *logits) {
    err *e = NULL;
    const tensor_row *row = &p->table->row[0];
    for (int i = 0; i < p->table->count; i++)
        if (p->table->row[i].role == R_EMBED) row = &p->table->row[i];
    slice mine = tensor_slice(row, p->m.tp, p->m.t);
    p->dev->ops->download(p->dev, logits + mine.row0, p->work.logits, (size_t)mine.rows * 4);
    TRY(p->dev->ops->sync(p->dev));
    int root = mesh_rank(&p->m, p->m.d, p->m.p, 0);
    if (p->m.t) TRY(comm_put(c, root, TAG_LOGITS, logits + mine.row0, (size_t)mine.rows * 4));
    for (int t = 1; t < p->m.tp && !p->m.t; t++) {
        slice s = tensor_slice(row, p->m.tp, t);
        TRY(comm_take(c, mesh_rank(&p->m, p->m.d, p->m.p, t), TAG_LOGITS, logits + s.row0,
                      (size_t)s.rows * 4));
    }
done:
    return e;
}

err *infer_last_logits(part *p, comm *c, const run *r, float *logits) {
    err *e = NULL;
    const mesh *m = &p->m;
    size_t bytes = (size_t)p->spec->vocab * 4;
    int root = mesh_rank(m, m->d, m->pp - 1, 0);
    if (p->last) {
        TRY(model_logits(r, r->batch * r->rows - 1, 1));
        TRY(collect_parts(p, c, logits));
    }
    if (c->m.rank != root) {
        TRY(comm_take(c, root, TAG_LOGITS, logits, bytes));
        goto done;
    }
    for (int stage = 0; stage < m->pp; stage++)
        for (int t = 0; t < m->tp; t++)
            if (mesh_rank(m, m->d, stage, t) != root)
                TRY(comm_put(c, mesh_rank(m, m->d, stage, t), TAG_LOGITS, logits, bytes));
done:
    return err_wrap(e, "logits");
}
