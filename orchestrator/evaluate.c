#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/infer.h"
#include "../worker/weights.h"
#include "log.h"
#include "train.h"

// Micro-batches are dealt to the data ranks in turn. `samples`: room for one.
static err *score(training *t, part *p, valid_set *v, int32_t *samples, const token_rows *rows,
                  loss_sum *sum) {
    err *e = NULL;
    int64_t L = t->cfg->data.seq_len, B = p->shape.batch, n = valid_samples(v);
    for (int64_t i = 0; i * B < n; i++) {
        if (i % t->m.dp != t->m.d) continue;
        int64_t count = n - i * B < B ? n - i * B : B;
        TRY(valid_read(v, i * B, count, samples));
        samples_split(samples, count, L, rows);
        TRY(infer_loss(p, t->c, rows, count, L, sum));
    }
done:
    return e;
}

static err *score_all(training *t, part *p, loss_sum sum[MAX_VALID]) {
    err *e = NULL;
    int64_t L = t->cfg->data.seq_len, B = p->shape.batch;
    token_rows rows = {0};
    int32_t *samples = malloc((size_t)(B * (L + 1)) * sizeof *samples);
    memset(sum, 0, sizeof *sum * MAX_VALID);
    TRY(token_rows_make(&rows, B * L, p->shape.mask_documents));
    if (!samples) FAIL(ERR_SYSTEM, "out of memory for validation samples");
    for (int i = 0; i < t->cfg->data.n_valid; i++) TRY(score(t, p, t->valid[i], samples, &rows, &sum[i]));
    TRY(comm_sum_world(t->c, &sum[0].loss, 2 * MAX_VALID));
done:
    token_rows_free(&rows);
    free(samples);
    return e;
}

err *evaluate(training *t, part *p, double loss[MAX_VALID], double *mean) {
    loss_sum sum[MAX_VALID], total = {0};
    t->c->phase = "evaluate";
    err *e = score_all(t, p, sum);
    if (e) return e;
    for (int i = 0; i < t->cfg->data.n_valid; i++) {
        total.loss += sum[i].loss;
        total.predicted += sum[i].predicted;
        loss[i] = sum[i].loss / sum[i].predicted;
    }
    *mean = total.loss / total.predicted;
    if (isfinite(*mean)) return NULL;
    return err_share(err_new(ERR_NUMERIC,
                             "the validation loss is %g: the weights hold NaN, or are so large that they "
                             "overflow; nothing of this is saved",
                             *mean));
}

static json_t *by_name(const training *t, const double *loss) {
    json_t *doc = json_object();
    for (int i = 0; i < t->cfg->data.n_valid; i++)
        json_object_set_new(doc, t->cfg->data.valid[i].name,
                            isfinite(loss[i]) ? json_real(loss[i]) : json_null());
    return doc;
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

// ---- the base model

static err *measure_base(training *t, blueprint *b, double loss[MAX_VALID]) {
    err *e = NULL;
    part *p = NULL;
    st_set *files = NULL;
    part_shape shape = {.dt = t->cfg->train.precision,
                        .use = PART_INFER,
                        .batch = t->cfg->train.micro_batch,
                        .rows = t->cfg->data.seq_len,
                        .micro = 1,
                        .mask_documents = t->cfg->data.mask_documents};
    err *mine = part_make(b->spec, b->plan, b->stages, b->table, &t->m, &shape, t->dev, &p);
    if (!mine) mine = st_open(t->cfg->model.base, &files);
    if (!mine) mine = table_check_files(b->table, files, false);
    if (!mine) mine = weights_load(p, files, false);
    TRY(comm_agree(t->c, mine));
    TRY(evaluate(t, p, loss, &t->state.base_loss));
done:
    st_close(files);
    part_free(p);
    return err_wrap(e, "the base model's own loss");
}

err *evaluate_base(training *t) {
    err *e = NULL;
    double loss[MAX_VALID];
    blueprint base = {0};
    bool skip = !t->cfg->eval.base || !t->cfg->model.has_dus || t->cfg->model.random || !t->cfg->data.n_valid;
    if (skip) return NULL;
    if (t->b.base->layers < t->m.pp) {
        if (t->m.rank == 0)
            log_warn("the base model has %lld layers, fewer than the %d pipeline stages: its own validation "
                     "loss is "
                     "not measured (use `solar eval`), and recovery is not reported",
                     (long long)t->b.base->layers, t->m.pp);
        return NULL;
    }
    TRY(blueprint_make(t->cfg->model.base, NULL, &(layout_shape){.pp = t->m.pp, .interleave = 1}, &base));
    TRY(measure_base(t, &base, loss));
    if (t->m.rank) goto done;
    log_info("base model: validation loss %.4f", t->state.base_loss);
    TRY(metrics_write(t->log, json_pack("{s:i, s:o, s:o}", "step", 0, "base_valid", by_name(t, loss),
                                        "base_valid_loss", number(t->state.base_loss))));
done:
    blueprint_free(&base);
    return e;
}

// ---- the run's model

static err *note_recovery(training *t, double mean) {
    run_state *s = &t->state;
    if (!(mean <= s->base_loss) || s->recovered_step >= 0) return NULL;
    s->recovered_step = s->step;
    s->recovered_tokens = s->tokens;
    if (t->m.rank) return NULL;
    log_info("recovered at step %lld (%lld tokens): %.4f <= %.4f of the base model", (long long)s->step,
             (long long)s->tokens, mean, s->base_loss);
    return metrics_write(t->log, json_pack("{s:I, s:I, s:b}", "step", (json_int_t)s->step, "tokens",
                                           (json_int_t)s->tokens, "recovered", 1));
}

static void say(const training *t, double mean) {
    const run_state *s = &t->state;
    if (!isfinite(s->base_loss))
        log_info("step %lld: validation loss %.4f", (long long)s->step, mean);
    else
        log_info("step %lld: validation loss %.4f, base %.4f (%+.4f)%s", (long long)s->step, mean,
                 s->base_loss, mean - s->base_loss, mean <= s->base_loss ? ", recovered" : "");
}

err *evaluate_run(training *t) {
    err *e = NULL;
    double loss[MAX_VALID], mean;
    run_state *s = &t->state;
    if (!t->cfg->data.n_valid) return NULL;
    TRY(evaluate(t, t->p, loss, &mean));
    s->evaluated_step = s->step;
    s->valid_loss = mean;
    if (s->step == 0) s->scaled_loss = mean;
    if (t->m.rank == 0) {
        say(t, mean);
        TRY(metrics_write(t->log,
                          json_pack("{s:I, s:I, s:o, s:o, s:o}", "step", (json_int_t)s->step, "tokens",
                                    (json_int_t)s->tokens, "valid", by_name(t, loss), "valid_loss",
                                    number(mean), "base_valid_loss", number(s->base_loss))));
    }
    TRY(note_recovery(t, mean));
done:
    return e;
}
