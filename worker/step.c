#include "step.h"

#include <math.h>
#include <stdlib.h>

#include "model.h"

// Tags of messages to a virtual stage: TAG_FORWARD + 2*stage and TAG_BACKWARD + 2*stage.
enum { TAG_FORWARD = 100, TAG_BACKWARD = 101, GRADS = 3 };

// Device memory is filled from pinned memory, so that nobody waits for it.
static err *open_tokens(trainer *t) {
    device *d = t->p->dev;
    enum { ARRAYS = 4, PAGE = 4096 };
    size_t bytes = (size_t)(t->p->tokens * t->micro) * sizeof(int32_t) * ARRAYS;
    if (d->ops->host_memory) return NULL;
    int32_t *staged = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!staged) return err_new(ERR_SYSTEM, "out of memory for the tokens of a step");
    err *e = d->ops->pin(d, staged, bytes);
    if (e)
        free(staged);
    else
        t->staged = staged;
    return e;
}

static err *open_transfers(trainer *t) {
    const part *p = t->p;
    t->sent = calloc((size_t)p->vstages, sizeof *t->sent);
    if (!t->sent) return err_new(ERR_SYSTEM, "out of memory for the trainer");
    for (int v = 0; v < p->vstages; v++) {
        int slots = p->vstage[v].slots;
        t->sent[v] = malloc((size_t)slots * sizeof **t->sent);
        if (!t->sent[v]) return err_new(ERR_SYSTEM, "out of memory for the trainer");
        for (int i = 0; i < slots; i++) t->sent[v][i] = TRANSFER_NONE;
    }
    for (int i = 0; i < GRADS; i++) t->sent_grad[i] = TRANSFER_NONE;
    t->arriving = TRANSFER_NONE;
    return NULL;
}

// Every send that may be under way, the receive that is, and the two before it on their way to the device.
static err *reserve_messages(trainer *t) {
    const part *p = t->p;
    int count = GRADS + 3;
    if (p->m.pp == 1) return NULL;
    for (int v = 0; v < p->vstages; v++) count += p->vstage[v].slots;
    return comm_reserve(t->c, count, (size_t)(p->local * p->spec->hidden) * dtype_size(p->shape.dt));
}

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
                   .actions = 2 * p->shape.micro * p->vstages};
    TRY(token_rows_make(&t->rows, p->tokens * p->shape.micro, p->shape.mask_documents));
    t->votes = calloc((size_t)p->m.world, sizeof *t->votes);
    t->sums = malloc((size_t)(p->weights + t->micro) * sizeof *t->sums);
    t->times = calloc((size_t)t->actions, sizeof *t->times);
    if (!t->votes || !t->times || !t->sums) FAIL(ERR_SYSTEM, "out of memory for the tokens of a step");
    TRY(open_transfers(t));
    TRY(reserve_messages(t));
    TRY(open_tokens(t));
    TRY(reduce_open(p, c, &t->reduce));
    TRY(updater_open(p, &t->update));
    *out = t;
    return NULL;
done:
    trainer_close(t);
    return e;
}

void trainer_close(trainer *t) {
    if (!t) return;
    reduce_close(t->reduce);
    updater_close(&t->update);
    for (int v = 0; t->sent && v < t->p->vstages; v++) free(t->sent[v]);
    free(t->sent);
    token_rows_free(&t->rows);
    if (t->staged) t->p->dev->ops->unpin(t->p->dev, t->staged);
    free(t->staged);
    free(t->votes);
    free(t->sums);
    free(t->times);
    free(t);
}

// ---- samples

static void take_samples(trainer *t, const int32_t *rows) {
    part *p = t->p;
    int64_t n = p->tokens * p->shape.micro;
    if (!part_takes_samples(p)) return;
    samples_split(rows, n / t->seq_len, t->seq_len, &t->rows);
    t->digest = samples_digest(rows, n / t->seq_len, t->seq_len);
    part_take_rows(p, &t->rows, n, t->staged);
}

static void clear_gradients(trainer *t) {
    arena *a = &t->p->mem;
    t->p->dev->ops->zero(t->p->dev, a->base[MEM_GRAD], a->used[MEM_GRAD]);
}

// ---- forward and backward of the micro-batches, with the pipeline's messages

static int stage_rank(const part *p, int stage) { return mesh_rank(&p->m, p->m.d, stage % p->m.pp, p->m.t); }

static run micro_run(trainer *t, const action *a) {
    part *p = t->p;
    const vstage *v = &p->vstage[a->v];
    int64_t at = a->micro * p->tokens;
    return (run){.p = p,
                 .c = t->c,
                 .v = v,
                 .s = &v->slot[a->micro % v->slots],
                 .batch = p->shape.batch,
                 .rows = p->shape.rows,
                 .inputs = p->inputs + at,
                 .targets = p->targets + at};
}

// Begins to receive what action `i` works on, so that it travels while the one before it is computed:
// activations into the spare input of their virtual stage, gradients into the buffer behind the one at work.
static err *expect_input(trainer *t, int i) {
    err *e = NULL;
    part *p = t->p;
    if (i >= t->actions) return NULL;
    const action *a = &p->schedule[i];
    const vstage *v = &p->vstage[a->v];
    run r = micro_run(t, a);
    int64_t n = run_elements(&r);
    if (a->kind == ACT_FORWARD && !v->first)
        TRY(comm_receive(t->c, COMM_FORWARD, stage_rank(p, v->index - 1), TAG_FORWARD + 2 * v->index,
                         p->shape.dt, v->spare, n, &t->arriving));
    if (a->kind == ACT_BACKWARD && !v->last) {
        int next = t->backwards % GRADS;
        TRY(comm_finish(t->c, &t->sent_grad[next]));
        TRY(comm_receive(t->c, COMM_BACKWARD, stage_rank(p, v->index + 1), TAG_BACKWARD + 2 * v->index,
                         p->shape.dt, p->work.grad[next], n, &t->arriving));
    }
done:
    return e;
}

static err *forward_micro(trainer *t, const action *a) {
    err *e = NULL;
    part *p = t->p;
    run r = micro_run(t, a);
    transfer *sent = &t->sent[a->v][a->micro % r.v->slots];
    TRY(comm_finish(t->c, sent)); // the slot's last output has left
    if (r.v->first) TRY(model_embed(&r));
    TRY(model_layers(&r));
    if (r.v->last)
        TRY(model_final_norm(&r));
    else
        TRY(comm_send(t->c, COMM_FORWARD, stage_rank(p, r.v->index + 1), TAG_FORWARD + 2 * (r.v->index + 1),
                      p->shape.dt, r.s->out, run_elements(&r), sent));
done:
    return e;
}

static double all_tokens(const trainer *t) { return (double)t->global_batch * (double)t->seq_len; }

// Loss of the micro-batch and gradient of the last stage's output. Each token weighs 1/(tokens of the global
// batch), so that sums over micro-batches and data ranks are the mean over the global batch. Where tokens are
// masked there are fewer: how many is known when all have voted, and grad_scale makes up for it.
static err *loss_micro(trainer *t, const run *r, int micro, void *grad) {
    part *p = t->p;
    float scale = (float)(1.0 / all_tokens(t));
    err *e = model_head_grad(r, scale, grad);
    if (!e) p->dev->ops->sum(p->dev, p->work.sums + p->weights + micro, p->work.loss, p->tokens);
    return e;
}

static err *layer_is_done(void *trainer_, int layer) {
    return reduce_ready(((trainer *)trainer_)->reduce, layer);
}

static err *backward_micro(trainer *t, const action *a, int at) {
    err *e = NULL;
    part *p = t->p;
    run r = micro_run(t, a);
    void *grad = p->work.grad[at];
    bool final = a->micro == t->micro - 1; // gradients are complete, and may be reduced
    if (final) r.layer_done = layer_is_done, r.who = t;
    if (r.v->last) TRY(loss_micro(t, &r, a->micro, grad));
    if (r.v->last && final) TRY(reduce_ready(t->reduce, p->layers));
    TRY(model_layers_grad(&r, grad));
    if (r.v->first)
        TRY(model_embed_grad(&r, grad));
    else
        TRY(comm_send(t->c, COMM_BACKWARD, stage_rank(p, r.v->index - 1), TAG_BACKWARD + 2 * (r.v->index - 1),
                      p->shape.dt, grad, run_elements(&r), &t->sent_grad[at]));
done:
    return e;
}

// The input that has come takes the place of the slot's own buffer, which becomes the spare one.
static void take_input(trainer *t, const action *a) {
    vstage *v = &t->p->vstage[a->v];
    if (a->kind == ACT_BACKWARD || v->first) return;
    layer_acts *acts = v->slot[a->micro % v->slots].acts;
    void *full = v->spare;
    v->spare = acts[0].x;
    acts[0].x = full;
}

// ---- time: what is not waiting is work

const char *phase_name(step_phase p) {
    static const char *const name[PHASES] = {"data", "forward", "backward", "reduction", "update"};
    return name[p];
}

// Seconds of a clock that stands still while this rank waits for others.
static double work_clock(const trainer *t) { return comm_now(t->c) - t->c->waited; }

static void spent(trainer *t, step_phase p, double since) { t->busy[p] += work_clock(t) - since; }

static err *run_action(trainer *t, int i) {
    err *e = NULL;
    const action *a = &t->p->schedule[i];
    action_time *time = &t->times[i];
    int at = t->backwards % GRADS;
    TRY(comm_finish(t->c, &t->arriving));
    take_input(t, a);
    if (a->kind == ACT_BACKWARD) t->backwards++;
    TRY(expect_input(t, i + 1));
    time->start = comm_now(t->c);
    double began = work_clock(t);
    if (a->kind == ACT_BACKWARD && t->p->vstage[a->v].last) TRY(comm_finish(t->c, &t->sent_grad[at]));
    const ops *k = t->p->dev->ops;
    step_phase phase = a->kind == ACT_FORWARD ? PHASE_FORWARD : PHASE_BACKWARD;
    k->range_begin(t->p->dev, phase_name(phase));
    e = a->kind == ACT_FORWARD ? forward_micro(t, a) : backward_micro(t, a, at);
    k->range_end(t->p->dev);
    if (e) goto done;
    time->end = comm_now(t->c);
    spent(t, phase, began);
done:
    return e;
}

static err *run_schedule(trainer *t) {
    err *e = NULL;
    t->backwards = 0;
    reduce_begin(t->reduce);
    TRY(expect_input(t, 0));
    for (int i = 0; i < t->actions; i++) TRY(run_action(t, i));
    for (int v = 0; v < t->p->vstages; v++)
        for (int i = 0; i < t->p->vstage[v].slots; i++) TRY(comm_finish(t->c, &t->sent[v][i]));
    for (int i = 0; i < GRADS; i++) TRY(comm_finish(t->c, &t->sent_grad[i]));
done:
    return e;
}

// ---- the step's verdict

static float lr_scale(const trainer *t, const weight *w) { return t->scale_lr ? w->lr_scale : 1; }

// Every element of a logical tensor is counted by exactly one of the ranks that hold it: among data ranks the
// one that sums its gradient, so that the norm has the same bits whether or not the optimizer is sharded.
static bool counts(const weight *w) { return w->s.copy == 0 && !w->tied; }

static void square_shares(trainer *t) {
    part *p = t->p;
    for (int i = 0; i < p->weights; i++) {
        int64_t at, n = weight_share(p, &p->weight[i], &at);
        p->dev->ops->sumsq(p->dev, p->work.sums + i, p->shape.grads,
                           weight_gradient(p, &p->weight[i], n ? at : 0), n);
    }
}

static err *local_sums(trainer *t, double *loss, double *squares) {
    err *e = NULL;
    part *p = t->p;
    device *d = p->dev;
    double *sums = t->sums;
    *loss = *squares = 0;
    square_shares(t);
    d->ops->download(d, sums, p->work.sums, (size_t)(p->weights + t->micro) * sizeof *sums);
    TRY(d->ops->sync(d));
    // What is not finite is told by every rank that sees it, also of a tensor that another rank counts.
    for (int i = 0; i < p->weights; i++)
        if ((counts(&p->weight[i]) && lr_scale(t, &p->weight[i]) > 0) || !isfinite(sums[i]))
            *squares += sums[i];
    for (int i = 0; i < t->micro; i++) *loss += p->last && p->m.t == 0 ? sums[p->weights + i] : 0;
done:
    return e;
}

static err *finish_reduction(trainer *t) {
    double began = work_clock(t);
    t->p->dev->ops->range_begin(t->p->dev, phase_name(PHASE_REDUCE));
    err *e = reduce_finish(t->reduce);
    t->p->dev->ops->range_end(t->p->dev);
    spent(t, PHASE_REDUCE, began);
    return e;
}

// Targets of this rank's samples that are not masked; and of all samples, with their digest, by one vote of
// every data rank.
static double own_predicted(const trainer *t) {
    const part *p = t->p;
    int64_t n = p->tokens * t->micro;
    return (double)(p->shape.mask_documents ? samples_predicted(t->rows.target, n) : n);
}

static double all_predicted(const trainer *t, uint64_t *digest) {
    double sum = 0;
    *digest = 0;
    for (int d = 0; d < t->p->m.dp; d++) {
        const step_vote *v = &t->votes[mesh_rank(&t->p->m, d, 0, 0)];
        sum += v->predicted;
        *digest += v->digest;
    }
    return sum;
}

// ---- what is sent in steps

static traffic all_sent(const trainer *t) {
    traffic sum = {0};
    for (int k = 0; k < COMM_KINDS; k++) {
        sum.messages += t->c->sent[k].messages;
        sum.bytes += t->c->sent[k].bytes;
    }
    return sum;
}

// Evaluations and checkpoints between two steps are left out.
static void begin_counting(trainer *t) { t->counted = all_sent(t); }

static void count_sent(trainer *t) {
    traffic now = all_sent(t);
    t->sent_since.messages += now.messages - t->counted.messages;
    t->sent_since.bytes += now.bytes - t->counted.bytes;
    t->counted = now;
}

// The one collective that all ranks take part in: loss, norm, what anybody wants. Summed in rank order.
static err *agree(trainer *t, unsigned wanted, step_report *out) {
    err *e = NULL;
    const part *p = t->p;
    double loss = 0, squares = 0, began = work_clock(t);
    step_vote mine = {.wanted = wanted, .predicted = own_predicted(t), .digest = t->digest};
    TRY(local_sums(t, &mine.loss, &mine.squares));
    spent(t, PHASE_REDUCE, began);
    for (int i = 0; i < PHASES; i++) mine.busy[i] = (float)t->busy[i], t->busy[i] = 0;
    count_sent(t);
    mine.sent = t->sent_since;
    t->sent_since = (traffic){0};
    TRY(comm_collect(t->c, &mine, t->votes, sizeof mine));
    *out = (step_report){.votes = t->votes};
    for (int r = 0; r < p->m.world; r++) {
        loss += t->votes[r].loss;
        squares += t->votes[r].squares;
        out->wanted |= (unsigned)t->votes[r].wanted;
    }
    double predicted = all_predicted(t, &out->digest);
    t->grad_scale = all_tokens(t) / predicted; // 1 when nothing is masked
    out->loss = loss / predicted;
    out->grad_norm = sqrt(squares) * t->grad_scale;
    out->verdict = guard_judge(t->guard, out->loss, out->grad_norm);
done:
    return err_wrap(e, "agreeing on the step");
}

// Clip and AdamW, of what is this rank's; then the weights to all data ranks.
static err *update_weights(trainer *t, int64_t update, const step_options *o, double norm) {
    part *p = t->p;
    double began = work_clock(t);
    p->dev->ops->range_begin(p->dev, phase_name(PHASE_UPDATE));
    p->dev->ops->follow(p->dev, p->saved); // of a snapshot that may be under way
    double scale = t->grad_scale * (o->clip_norm > 0 && norm > o->clip_norm ? o->clip_norm / norm : 1);
    err *e = updater_run(&t->update, update, o, scale);
    spent(t, PHASE_UPDATE, began);
    if (!e) e = reduce_gather_weights(t->reduce);
    p->dev->ops->range_end(p->dev);
    return e;
}

err *train_gradients(trainer *t, const int32_t *rows, step_report *out) {
    err *e = NULL;
    take_samples(t, rows);
    clear_gradients(t);
    TRY(run_schedule(t));
    TRY(finish_reduction(t));
    TRY(agree(t, 0, out));
done:
    return e;
}

err *train_step(trainer *t, int64_t step, int64_t update, const step_options *o, const int32_t *rows,
                unsigned wanted, step_report *out) {
    err *e = NULL;
    t->c->phase = "train";
    t->c->step = step;
    t->began = comm_now(t->c);
    t->scale_lr = o->scale_lr;
    begin_counting(t);
    take_samples(t, rows);      // tokens of the global batch's share of this rank
    clear_gradients(t);         //
    TRY(run_schedule(t));       // forward and backward, micro-batch by micro-batch, stage to stage
    TRY(finish_reduction(t));   // what of the gradients has not been summed over data ranks on the way
    TRY(agree(t, wanted, out)); // loss, gradient norm, wishes: the same on every rank
    if (out->verdict == STEP_GOOD) TRY(update_weights(t, update, o, out->grad_norm)); // clip and AdamW
    count_sent(t);
done:
    return err_wrap(e, "step %lld", (long long)step);
}
