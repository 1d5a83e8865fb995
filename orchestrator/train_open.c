// From a config to a run that can take its next step.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/life.h"
#include "../worker/roll_call.h"
#include "../worker/weights.h"
#include "config_diff.h"
#include "data_order.h"
#include "fsutil.h"
#include "gpus.h"
#include "log.h"
#include "lr.h"
#include "plan.h"
#include "tokenizer.h"
#include "train.h"

// ---- mesh, device, communicators

static err *open_mesh(training *t) {
    err *e = NULL;
    const config *c = t->cfg;
    const depth_ask ask = config_depth(c);
    const layout_shape stages = plan_layout(c);
    int threads = c->train.threads ? (int)c->train.threads : world_threads(t->w);
    TRY(mesh_make(t->w->size, t->w->rank, (int)c->mesh.pipeline, (int)c->mesh.tensor, c->mesh.order, &t->m));
    TRY(blueprint_make(c->model.base, &ask, &stages, &t->b));
    TRY(table_check_tp(t->b.spec, t->m.tp));
    TRY(device_open(c->train.device, t->w, threads, &t->dev));
    if (t->w->rank == 0)
        log_info("device %s, %d thread(s) a rank, %d rank(s) on this host of %d in all", t->dev->ops->name,
                 threads, t->w->local_size, t->w->size);
done:
    return e;
}

// ---- run directory

static err *write_text(const char *dir, const char *name, const char *text) {
    char *path = path_join(dir, name);
    err *e = write_file_atomic(path, text, strlen(text));
    free(path);
    return e;
}

// The directory is this run's alone from here on.
static err *prepare_directory(training *t) {
    err *e = NULL;
    const char *dir = t->cfg->run.dir;
    TRY(plan_text(t->cfg, &t->b, t->w->size, &t->plan_text));
    fputs(t->plan_text, stderr);
    TRY(make_dirs(dir));
    TRY(run_lock_take(dir, t->take_over, &t->lock));
    TRY(life_begin(dir, &t->life));
    checkpoint_clean(dir);
done:
    return e;
}

// Once it is known that this config may go on with the run.
static err *write_papers(training *t) {
    err *e = NULL;
    const char *dir = t->cfg->run.dir;
    TRY(write_text(dir, "plan.txt", t->plan_text));
    TRY(write_text(dir, "config.yaml", t->config_text));
    TRY(metrics_open(dir, t->resumed ? t->state.step : -1, &t->log));
    TRY(slow_open(t->m.world, &t->slow));
    lives_begin(dir, t->state.step, t->state.tokens, t->w->size, &t->diary);
done:
    return e;
}

// ---- data

static err *open_data(training *t) {
    err *e = NULL;
    const config *c = t->cfg;
    TRY(tokenizer_file_sha256(c->model.base, t->tokenizer_sha256));
    stream_check check = {.vocab = t->b.spec->vocab,
                          .tokenizer_sha256 = *t->tokenizer_sha256 ? t->tokenizer_sha256 : NULL,
                          .allow_mismatch = c->data.allow_tokenizer_mismatch,
                          .mark_documents = c->data.mask_documents};
    if (c->data.n_valid > MAX_VALID)
        FAIL(ERR_CONFIG, "data.valid names %d sets, at most %d are supported", c->data.n_valid, MAX_VALID);
    TRY(open_blend(c, &check, &t->data));
    for (int i = 0; i < c->data.n_valid; i++)
        TRY(valid_open(&c->data.valid[i], c->data.seq_len, &check, &t->valid[i]));
done:
    return err_wrap(e, "opening the data");
}

// What fixes the validation samples. Equal text, equal samples.
static char *valid_order(const training *t) {
    const config *c = t->cfg;
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fprintf(f, "seq_len %lld", (long long)c->data.seq_len);
    for (int i = 0; i < c->data.n_valid; i++)
        fprintf(f, "; %s, %lld samples of %s", c->data.valid[i].name, (long long)valid_samples(t->valid[i]),
                c->data.valid[i].files);
    fclose(f);
    return text;
}

// ---- state: new, or from a checkpoint

static err *new_state(training *t) {
    t->state = (run_state){.seed = t->cfg->run.seed,
                           .base_layers = t->b.plan->base_layers,
                           .base_loss = NAN,
                           .scaled_loss = NAN,
                           .recovered_step = -1,
                           .recovered_tokens = -1,
                           .evaluated_step = -1,
                           .valid_loss = NAN,
                           .depth_plan = depth_text(t->b.plan),
                           .data_order = data_order(t->cfg, t->data),
                           .valid_order = valid_order(t)};
    config_sum(t->config_text, t->state.config_xxh3);
    return t->state.depth_plan && t->state.data_order && t->state.valid_order
               ? NULL
               : err_new(ERR_SYSTEM, "out of memory for the run state");
}

// What a resumed run must have in common with its checkpoint.
static err *check_state(training *t, const run_state *now) {
    const run_state *s = &t->state;
    if (strcmp(s->depth_plan, now->depth_plan) != 0)
        return err_new(ERR_CONFIG,
                       "the run was begun with layers %s of the base model, the config now says %s",
                       s->depth_plan, now->depth_plan);
    if (strcmp(s->data_order, now->data_order) == 0) return NULL;
    if (same_past(s->data_order, now->data_order, s->samples_consumed)) {
        if (t->m.rank == 0) log_info("the blend of samples that are still to come is another than before");
        return NULL;
    }
    if (t->accept_data) {
        if (t->m.rank == 0) log_warn("the order of samples changes from here on, as accepted");
        return NULL;
    }
    return err_new(
        ERR_CONFIG,
        "the order of samples would change in the middle of the run:\n  before: %s\n  now:    %s\nRestore "
        "the former data settings, or pass --accept to go on with the new ones",
        s->data_order, now->data_order);
}

static void swap_text(char **a, char **b) {
    char *text = *a;
    *a = *b;
    *b = text;
}

// ---- what has changed in the config since the checkpoint

// What a changed key means for a run that is resumed; in the order in which they are tried, by their
// beginning.
static const char *meaning_of(const char *key) {
    static const char *const list[][2] = {
        {"mesh.", "another mesh: the same run to rounding"},
        {"train.micro_batch", "another order of sums: the same run to rounding"},
        {"train.precision", "other arithmetic from here on"},
        {"train.grad_accum", "gradients of another precision from here on"},
        {"train.grad_reduce", "gradients of another precision from here on"},
        {"train.recompute", "the same numbers"},
        {"train.global_batch", "other gradients from here on; samples go on where they were"},
        {"train.steps", "another end; schedules that count from the end move"},
        {"optimizer.shard", "the same numbers"},
        {"optimizer.offload", "the same numbers"},
        {"optimizer.moments", "the moments are kept otherwise from here on"},
        {"optimizer.", "other updates from here on"},
        {"lr_scale.", "other updates from here on"},
        {"schedule.", "other rates from here on"},
        {"data.train", "other samples"},
        {"data.valid", "the base model and recovery are measured again"},
        {"data.", "other samples"},
        {"model.", "another model would be another run; where this goes on, its tensors are the same"},
        {"checkpoint.", "the same numbers"},
        {"log.", "the same numbers"},
        {"timeout.", "the same numbers"},
        {"eval.", "the same numbers, measured at other steps"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strncmp(key, list[i][0], strlen(list[i][0])) == 0) return list[i][1];
    return "may change what follows";
}

static void tell_change(void *context, const char *key, const char *before, const char *now) {
    (void)context;
    log_info("config: %s was %s, is %s: %s", key, before, now, meaning_of(key));
}

// The former life's resolved config lies in the run directory. It may be of a later one than the checkpoint,
// and it may be gone: then there is only the sum to go by.
static void tell_changes(const training *t) {
    char *path = path_join(t->cfg->run.dir, "config.yaml"), *former = NULL, sum[33];
    config_sum(t->config_text, sum);
    if (t->m.rank == 0 && *t->state.config_xxh3 && strcmp(sum, t->state.config_xxh3) != 0) {
        err *e = read_file(path, 1 << 20, &former, NULL);
        if (e || config_changes(former, t->config_text, tell_change, NULL) == 0)
            log_info(
                "config: it is not the one that the checkpoint was made with; what has changed is not known");
        err_free(e);
    }
    free(former);
    free(path);
}

// A base loss on other samples says nothing about these: it is measured again, and so is recovery.
static void check_valid(training *t, run_state *now) {
    run_state *s = &t->state;
    t->other_valid = strcmp(s->valid_order, now->valid_order) != 0;
    if (!t->other_valid) return;
    if (t->m.rank == 0) log_warn("the validation sets are not those that the run began with");
    swap_text(&s->valid_order, &now->valid_order);
    s->base_loss = NAN;
    s->recovered_step = s->recovered_tokens = s->evaluated_step = -1;
}

static err *resume_state(training *t, const char *dir) {
    err *e = NULL;
    run_state now;
    TRY(new_state(t));
    now = t->state;
    t->state = (run_state){0};
    e = checkpoint_state(dir, &t->state);
    if (!e) e = check_state(t, &now);
    if (!e) tell_changes(t);
    if (!e) check_valid(t, &now);
    if (!e) config_sum(t->config_text, t->state.config_xxh3);
    if (!e) swap_text(&t->state.data_order, &now.data_order); // equal, or accepted
    run_state_free(&now);
done:
    return e;
}

// ---- weights

static err *load_base(training *t) {
    err *e = NULL;
    st_set *files = NULL;
    bool deepened = !t->b.plan->identity;
    if (t->cfg->model.random) return weights_random(t->p, (uint64_t)t->cfg->run.seed);
    TRY(st_open(t->cfg->model.base, &files));
    TRY(table_check_files(t->b.table, files, deepened));
    TRY(weights_load(t->p, files, deepened));
done:
    st_close(files);
    return e;
}

static err *build_model(training *t) {
    err *e = NULL;
    part_shape shape;
    TRY(plan_shape(t->cfg, &t->m, &shape));
    TRY(part_make(t->b.spec, t->b.plan, t->b.stages, t->b.table, &t->m, &shape, t->dev, &t->p));
    if (!t->resumed) TRY(load_base(t));
    TRY(trainer_open(t->p, t->c, t->cfg->train.global_batch, &t->t));
    TRY(measures_open(t->cfg, t->b.spec, t->c, t->dev, &t->measures));
    for (int i = 0; i < t->p->weights; i++)
        t->p->weight[i].lr_scale = (float)learning_rate_scale(t->cfg, t->b.plan, t->p->weight[i].row);
    t->t->guard = &t->state.guard;
    TRY(saving_open(t));
done:
    return e;
}

// ---- the whole

static err *start_stream(training *t) {
    int64_t rows = t->cfg->train.global_batch / t->m.dp;
    if (!part_takes_samples(t->p)) return NULL;
    return stream_start(t->data, t->state.samples_consumed, t->m.d * rows, rows, t->cfg->train.global_batch);
}

// Takes up the state of the newest checkpoint whose papers are whole, or of a new run.
static err *take_state(training *t, char **checkpoint) {
    err *e = NULL;
    free(*checkpoint);
    TRY(checkpoint_find(t->c, t->cfg->run.dir, t->life, checkpoint));
    t->resumed = *checkpoint != NULL;
    run_state_free(&t->state);
    TRY(comm_agree(t->c, *checkpoint ? resume_state(t, *checkpoint) : new_state(t)));
    TRY(comm_agree(t->c, t->m.rank == 0 ? write_papers(t) : NULL));
done:
    return e;
}

// Weights and optimizer, of an older checkpoint when this one turns out to be damaged.
static err *load_checkpoint(training *t, char **checkpoint) {
    err *e = NULL;
    bool damaged = true;
    while (damaged) {
        err *mine = checkpoint_load(t->p, *checkpoint, world_threads(t->w));
        TRY(checkpoint_judge(t->c, t->cfg->run.dir, *checkpoint, mine, &damaged));
        if (damaged) TRY(take_state(t, checkpoint));
    }
    if (t->m.rank == 0) log_info("resuming from %s, step %lld", *checkpoint, (long long)t->state.step);
done:
    return e;
}

// The name of rank 0's life to all.
static err *share_life(training *t) {
    err *e = NULL;
    size_t bytes = t->life ? strlen(t->life) + 1 : 0;
    TRY(comm_broadcast(t->c, &t->c->world, &bytes, sizeof bytes, 0));
    if (!t->life && !(t->life = malloc(bytes))) FAIL(ERR_SYSTEM, "out of memory for the name of this life");
    TRY(comm_broadcast(t->c, &t->c->world, t->life, bytes, 0));
    if (asprintf(&t->reports, "%s/reports/%s", t->cfg->run.dir, strrchr(t->life, '/') + 1) < 0)
        FAIL(ERR_SYSTEM, "out of memory for the name of this life");
    t->c->reports = t->reports;
    t->c->ending = wishes_signalled;
done:
    return e;
}

err *training_open(training *t) {
    err *e = NULL;
    char *checkpoint = NULL;
    bool linked;
    TRY(world_agree(t->w, open_mesh(t)));
    TRY(gpus_check(t->w, t->dev, t->cfg->mesh.transport, &linked));
    TRY(comm_open(&t->m, t->dev, t->b.spec->kv_heads, t->b.spec->tied, t->cfg->timeout.start, &t->c));
    if (linked) TRY(comm_link(t->c));
    TRY(comm_agree(t->c, t->m.rank == 0 ? prepare_directory(t) : NULL));
    TRY(share_life(t));
    TRY(comm_agree(t->c, open_data(t)));
    TRY(take_state(t, &checkpoint));
    if (!t->resumed || t->other_valid) TRY(evaluate_base(t));
    TRY(comm_agree(t->c, build_model(t)));
    if (t->resumed) TRY(load_checkpoint(t, &checkpoint));
    guard_set(&t->state.guard, t->cfg->train.spike_sigma, (int)t->cfg->train.spike_window);
    t->saved_step = t->resumed ? t->state.step : -1;
    wishes_open(t->cfg, t->life, t->m.rank == 0, saver_bytes(t->saver), &t->wishes);
    TRY(comm_agree(t->c, start_stream(t)));
done:
    free(checkpoint);
    return e;
}

void training_close(training *t) {
    saving_close(t);
    stream_close(t->data);
    for (int i = 0; i < MAX_VALID; i++) valid_close(t->valid[i]);
    metrics_close(t->log);
    slow_close(&t->slow);
    trainer_close(t->t);
    part_free(t->p);
    if (t->c) roll_forget(t->c); // the ranks end together: nothing was stuck
    comm_close(t->c);
    if (t->dev) t->dev->ops->close(t->dev);
    blueprint_free(&t->b);
    run_state_free(&t->state);
    free(t->life);
    free(t->reports);
    config_free(t->cfg);
    free(t->config_text);
    free(t->plan_text);
    run_lock_release(&t->lock);
}
