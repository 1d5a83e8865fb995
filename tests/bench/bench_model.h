// A model that is trained on random tokens, for bench_train.c and bench_gpu_train.c: made, stepped, dropped.
#ifndef BENCH_MODEL_H
#define BENCH_MODEL_H

#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "depth.h"
#include "measure.h"
#include "step.h"
#include "weights.h"

typedef struct model {
    const char *name;
    int64_t hidden, layers, heads, kv_heads, ffn, vocab, seq, batch;
    bool apart; // a head of its own
} model;

typedef struct bench {
    model m;
    dtype dt;
    int micro; // micro-batches of a step
    model_spec *spec;
    depth_plan *plan;
    layout *stages;
    table *table;
    device *dev;
    comm *comm;
    part *part;
    trainer *trainer;
    int32_t *rows;
    int64_t step;
} bench;

static inline err *make_spec(const model *m, model_spec **out) {
    json_t *j =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:s, s:b, s:f}", "model_type", "llama",
                  "hidden_size", (json_int_t)m->hidden, "intermediate_size", (json_int_t)m->ffn,
                  "num_hidden_layers", (json_int_t)m->layers, "num_attention_heads", (json_int_t)m->heads,
                  "num_key_value_heads", (json_int_t)m->kv_heads, "vocab_size", (json_int_t)m->vocab,
                  "max_position_embeddings", (json_int_t)m->seq, "rms_norm_eps", 1e-5, "rope_theta", 1e4,
                  "hidden_act", "silu", "tie_word_embeddings", !m->apart, "initializer_range", 0.02);
    if (!j) return err_new(ERR_SYSTEM, "no memory for a config");
    err *e = spec_parse(j, m->name, out);
    json_decref(j);
    return e;
}

// Opens all but the device, which is there, and the weights.
static inline err *open_model(bench *b, const part_shape *more) {
    err *e = NULL;
    mesh one;
    const model *m = &b->m;
    part_shape shape = *more;
    shape.dt = b->dt, shape.use = PART_TRAIN, shape.batch = m->batch, shape.rows = m->seq,
    shape.micro = b->micro;
    TRY(make_spec(m, &b->spec));
    TRY(mesh_make(1, 0, 1, 1, MESH_TDP, &one));
    TRY(depth_identity((int)m->layers, &b->plan));
    TRY(layout_make(b->plan, &(layout_shape){.pp = 1, .interleave = 1}, &b->stages));
    TRY(table_make(b->spec, b->plan, b->stages, &b->table));
    TRY(comm_open(&one, b->dev, m->kv_heads, !m->apart, 600, &b->comm));
    TRY(part_make(b->spec, b->plan, b->stages, b->table, &one, &shape, b->dev, &b->part));
    TRY(trainer_open(b->part, b->comm, m->batch * b->micro, &b->trainer));
    int64_t n = m->batch * b->micro * (m->seq + 1);
    b->rows = malloc((size_t)n * sizeof *b->rows);
    if (!b->rows) FAIL(ERR_SYSTEM, "no memory for tokens");
    uint32_t random = 1;
    for (int64_t i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u;
        b->rows[i] = (int32_t)((random >> 8) % (uint32_t)m->vocab);
    }
done:
    return e;
}

static inline void close_bench(bench *b) {
    free(b->rows);
    trainer_close(b->trainer);
    part_free(b->part);
    comm_close(b->comm);
    if (b->dev) b->dev->ops->close(b->dev);
    table_free(b->table);
    layout_free(b->stages);
    depth_free(b->plan);
    spec_free(b->spec);
}

static inline double useful_flop(const bench *b) { // of a token
    const model *m = &b->m;
    double n = 0;
    for (int i = 0; i < b->part->weights; i++)
        if (b->part->weight[i].row->decay) n += (double)b->part->weight[i].n;
    return 6 * n + 6.0 * (double)m->layers * (double)(b->spec->heads * b->spec->head_dim) * (double)m->seq;
}

static inline err *one_step(bench *b, double *seconds) {
    step_report report;
    step_options o = {
        .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_norm = 1};
    double start = now();
    err *e = train_step(b->trainer, b->step, b->step + 1, &o, b->rows, 0, &report);
    *seconds = now() - start;
    b->step++;
    if (!e && !isfinite(report.loss)) return err_new(ERR_NUMERIC, "the loss is %g", report.loss);
    return e;
}

#endif
