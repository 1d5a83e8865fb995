#include "step.h"

#include <math.h>
#include <stdlib.h>

#include "log.h"
#include "model.h"

enum { TAG_FORWARD = 10, TAG_BACKWARD = 11 };

err *trainer_open(part *p, comm *c, int64_t global_batch, trainer **out) {
    err *e = NULL;
    trainer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return err_new(ERR_SYSTEM, "out of memory for the trainer");
    *t = (trainer){.p = p,
                   .c = c,
                   .seq_len = p->shape.rows,
                   .global_batch = global_batch,
                   .micro = p->shape.micro,
                   .sent_grad = {TRANSFER_NONE, TRANSFER_NONE}};
    size_t tokens = (size_t)(p->tokens * p->shape.micro);
    t->in = malloc(tokens * sizeof *t->in);
    t->target = malloc(tokens * sizeof *t->target);
    t->sent = malloc((size_t)p->shape.slots * sizeof *t->sent);
    t->votes = malloc((size_t)p->m.world * sizeof *t->votes);
    t->times = calloc(2 * (size_t)t->micro, sizeof *t->times);
    if (!t->in || !t->target || !t->sent || !t->votes || !t->times)
        FAIL(ERR_SYSTEM, "out of memory for the tokens of a step");
    for (int i = 0; i < p->shape.slots; i++) t->sent[i] = TRANSFER_NONE;
    TRY(schedule_1f1b(&p->m, t->micro, &t->order));
    *out = t;
    return NULL;
done:
    trainer_close(t);
    return e;
}

void trainer_close(trainer *t) {
    if (!t) return;
    free(t->order);
    free(t->in);
    free(t->target);
    free(t->sent);
    free(t->votes);
    free(t->times);
    free(t);
}

// ---- samples

// Row i of the step holds seq_len+1 tokens: inputs are all but the last, targets all but the first.
static void take_samples(trainer *t, const int32_t *rows) {
    part *p = t->p;
    int64_t L = t->seq_len, n = p->tokens * p->shape.micro;
    if (!p->first && !p->last) return;
    for (int64_t i = 0; i < n; i++) {
        const int32_t *sample = rows + i / L * (L + 1);
        t->in[i] = sample[i % L];
        t->target[i] = sample[i % L + 1];
    }
    p->dev->ops->upload(p->dev, p->inputs, t->in, (size_t)n * 4);
    p->dev->ops->upload(p->dev, p->targets, t->target, (size_t)n * 4);
}

static void clear_gradients(trainer *t) {
    arena *a = &t->p->mem;
    t->p->dev->ops->zero(t->p->dev, a->base[MEM_GRAD], a->used[MEM_GRAD]);
}

// ---- forward and backward of the micro-batches, with the pipeline's messages

static int64_t hidden_elements(const part *p) { return p->tokens * p->spec->hidden; }
static int neighbour(const part *p, int by) { return mesh_rank(&p->m, p->m.d, p->m.p + by, p->m.t); }

static run micro_run(trainer *t, int micro) {
    part *p = t->p;
    int64_t at = micro * p->tokens;
    return (run){.p = p,
                 .c = t->c,
                 .s = &p->slot[micro % p->shape.slots],
                 .batch = p->shape.batch,
                 .rows = p->shape.rows,
                 .inputs = p->inputs + at,
                 .targets = p->targets + at};
}

static err *forward_micro(trainer *t, int micro) {
    err *e = NULL;
    part *p = t->p;
    run r = micro_run(t, micro);
    transfer in, *sent = &t->sent[micro % p->shape.slots];
    TRY(comm_finish(t->c, sent)); // the slot's last output has left
    t->times[t->at].start = comm_now(t->c);
    if (p->first)
        TRY(model_embed(&r));
    else {
        TRY(comm_receive(t->c, neighbour(p, -1), TAG_FORWARD, p->shape.dt, r.s->acts[0].x, hidden_elements(p),
                         &in));
        TRY(comm_finish(t->c, &in));
        t->times[t->at].start = comm_now(t->c);
    }
    TRY(model_layers(&r));
    if (p->last)
        TRY(model_final_norm(&r));
    else
        TRY(comm_send(t->c, COMM_FORWARD, neighbour(p, 1), TAG_FORWARD, p->shape.dt, r.s->out,
                      hidden_elements(p), sent));
done:
    return e;
}

// Loss of the micro-batch and gradient of the last stage's output. Each token weighs 1/(tokens of the global
// batch), so that sums over micro-batches and data ranks are the mean over the global batch.
static err *loss_micro(trainer *t, const run *r, int micro, void *grad) {
    part *p = t->p;
    float scale = (float)(1.0 / ((double)t->global_batch * (double)t->seq_len));
    err *e = model_head_grad(r, scale, grad);
    if (!e) p->dev->ops->sum(p->dev, p->work.sums + p->weights + micro, p->work.loss, p->tokens);
    return e;
}

static err *backward_micro(trainer *t, int micro) {
    err *e = NULL;
    part *p = t->p;
    run r = micro_run(t, micro);
    transfer in, *sent = &t->sent_grad[micro % 2];
    void *grad = p->work.grad[micro % 2];
    TRY(comm_finish(t->c, sent));
    t->times[t->at].start = comm_now(t->c);
    if (p->last)
        TRY(loss_micro(t, &r, micro, grad));
    else {
        TRY(comm_receive(t->c, neighbour(p, 1), TAG_BACKWARD, p->shape.dt, grad, hidden_elements(p), &in));
        TRY(comm_finish(t->c, &in));
        t->times[t->at].start = comm_now(t->c);
    }
    TRY(model_layers_grad(&r, grad));
    if (p->first)
        TRY(model_embed_grad(&r, grad));
    else
        TRY(comm_send(t->c, COMM_BACKWARD, neighbour(p, -1), TAG_BACKWARD, p->shape.dt, grad,
                      hidden_elements(p), sent));
done:
    return e;
}

static err *run_schedule(trainer *t) {
    err *e = NULL;
    for (int i = 0; i < 2 * t->micro; i++) {
        const action *a = &t->order[i];
        t->at = i;
        TRY(a->kind == ACT_FORWARD ? forward_micro(t, a->micro) : backward_micro(t, a->micro));
        t->times[i].end = comm_now(t->c);
    }
    for (int i = 0; i < t->p->shape.slots; i++) TRY(comm_finish(t->c, &t->sent[i]));
    for (int i = 0; i < 2; i++) TRY(comm_finish(t->c, &t->sent_grad[i]));
done:
    return e;
}

// ---- gradients

static bool is_kv(role r) { return r == R_K || r == R_V || r == R_KB || r == R_VB; }

// Where ranks hold the same tensor, they need the same gradient: key/value heads held by several tensor
// ranks, the embedding held by the first and the last stage, and everything across data ranks.
static err *reduce_gradients(trainer *t) {
    err *e = NULL;
    part *p = t->p;
    comm *c = t->c;
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (is_kv(w->row->role)) TRY(comm_sum(c, &c->kv, DT_F32, w->grad, w->n));
        if (w->row->role == R_EMBED && c->tied.size) TRY(comm_sum(c, &c->tied, DT_F32, w->grad, w->n));
    }
    TRY(comm_sum(c, &c->dp, DT_F32, p->mem.base[MEM_GRAD], (int64_t)(p->mem.used[MEM_GRAD] / 4)));
done:
    return err_wrap(e, "reducing gradients");
}

static float lr_scale(const trainer *t, const weight *w) { return t->scale_lr ? w->lr_scale : 1; }

// Every logical tensor is counted by exactly one of the ranks that hold it.
static bool counts(const part *p, const weight *w) { return p->m.d == 0 && w->s.copy == 0 && !w->tied; }

static err *local_sums(trainer *t, double *loss, double *squares) {
    err *e = NULL;
    part *p = t->p;
    device *d = p->dev;
    int n = p->weights + t->micro;
    double *sums = malloc((size_t)n * sizeof *sums);
    if (!sums) return err_new(ERR_SYSTEM, "out of memory for %d sums", n);
    *loss = *squares = 0;
    for (int i = 0; i < p->weights; i++)
        d->ops->sumsq(d, p->work.sums + i, p->weight[i].grad, p->weight[i].n);
    d->ops->download(d, sums, p->work.sums, (size_t)n * sizeof *sums);
    TRY(d->ops->sync(d));
    // What is not finite is told by every rank that sees it, also of a tensor that another rank counts.
    for (int i = 0; i < p->weights; i++)
        if ((counts(p, &p->weight[i]) && lr_scale(t, &p->weight[i]) > 0) || !isfinite(sums[i]))
            *squares += sums[i];
    for (int i = 0; i < t->micro; i++) *loss += p->last && p->m.t == 0 ? sums[p->weights + i] : 0;
done:
    free(sums);
    return e;
}

// The one collective that all ranks take part in: loss, norm, what anybody wants. Summed in rank order.
static err *agree(trainer *t, unsigned wanted, step_report *out) {
    err *e = NULL;
    double loss = 0, squares = 0;
    step_vote mine = {.wanted = wanted};
    TRY(local_sums(t, &mine.loss, &mine.squares));
    mine.busy = now_seconds() - t->begun - (t->c->waited - t->waited);
    TRY(comm_collect(t->c, &mine, t->votes, sizeof mine));
    *out = (step_report){.votes = t->votes};
    for (int r = 0; r < t->p->m.world; r++) {
        loss += t->votes[r].loss;
        squares += t->votes[r].squares;
        out->wanted |= (unsigned)t->votes[r].wanted;
    }
    out->loss = loss / ((double)t->global_batch * (double)t->seq_len);
    out->grad_norm = sqrt(squares);
    out->verdict = guard_judge(t->guard, out->loss, out->grad_norm);
done:
    return err_wrap(e, "agreeing on the step");
}

static err *update_weights(trainer *t, int64_t update, const step_options *o, double norm) {
    part *p = t->p;
    double scale = o->clip_norm > 0 && norm > o->clip_norm ? o->clip_norm / norm : 1;
    for (int i = 0; i < p->weights; i++) {
        const weight *w = &p->weight[i];
        if (lr_scale(t, w) == 0) continue; // frozen
        adamw a = {.dt = p->shape.dt,
                   .n = w->n,
                   .master = w->master,
                   .weight = w->w,
                   .m = w->m,
                   .v = w->v,
                   .grad = w->grad,
                   .grad_scale = (float)scale,
                   .lr = (float)(o->lr * lr_scale(t, w)),
                   .beta1 = (float)o->beta1,
                   .beta2 = (float)o->beta2,
                   .eps = (float)o->eps,
                   .decay = w->row->decay ? (float)o->weight_decay : 0,
                   .step = update};
        p->dev->ops->adamw(p->dev, &a);
    }
    return p->dev->ops->sync(p->dev);
}

err *train_gradients(trainer *t, const int32_t *rows, step_report *out) {
    err *e = NULL;
    take_samples(t, rows);
    clear_gradients(t);
    TRY(run_schedule(t));
    TRY(reduce_gradients(t));
    TRY(agree(t, 0, out));
done:
    return e;
}

err *train_step(trainer *t, int64_t step, int64_t update, const step_options *o, const int32_t *rows,
                unsigned wanted, step_report *out) {
    err *e = NULL;
    t->c->phase = "train";
    t->c->step = step;
    t->scale_lr = o->scale_lr;
    t->begun = now_seconds();
    t->waited = t->c->waited;
    take_samples(t, rows);      // tokens of the global batch's share of this rank
    clear_gradients(t);         //
    TRY(run_schedule(t));       // forward and backward, micro-batch by micro-batch, stage to stage
    TRY(reduce_gradients(t));   // kv copies, tied embedding, data parallel
    TRY(agree(t, wanted, out)); // loss, gradient norm, wishes: the same on every rank
    if (out->verdict == STEP_GOOD) TRY(update_weights(t, update, o, out->grad_norm)); // clip and AdamW
done:
    return err_wrap(e, "step %lld", (long long)step);
}
