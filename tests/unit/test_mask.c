// Documents masked within a packed sequence: every token's loss and every gradient are those of the documents
// run each by itself, on the tiny models of tests/oracle/fixtures.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <mpi.h>

#include "infer.h"
#include "step.h"
#include "weights.h"

enum { BATCH = 2, MICRO = 2, ROWS = 24, SAMPLES = BATCH * MICRO, MOST_DOCUMENTS = 40 };

typedef struct model {
    st_set *files;
    model_spec *spec;
    depth_plan *plan;
    layout *stages;
    table *table;
    device *dev;
    comm *comm;
    mesh one;
} model;

typedef struct document {
    int sample, row, length; // length: of its tokens in the sample, the sample's last one included
} document;

const char *__asan_default_options(void); // as in test_oracle.c
const char *__asan_default_options(void) { return "fast_unwind_on_malloc=0"; }

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void open_model(model *m, const char *name) {
    const char *root = getenv("SOLAR_SOURCE");
    char *dir = NULL;
    assert_true(asprintf(&dir, "%s/tests/oracle/fixtures/%s/model", root ? root : ".", name) > 0);
    *m = (model){0};
    ok(spec_load(dir, &m->spec));
    ok(st_open(dir, &m->files));
    ok(depth_identity((int)m->spec->layers, &m->plan));
    ok(layout_make(m->plan, &(layout_shape){.pp = 1, .interleave = 1}, &m->stages));
    ok(table_make(m->spec, m->plan, m->stages, &m->table));
    ok(mesh_make(1, 0, 1, 1, MESH_TDP, &m->one));
    ok(cpu_open(1, &m->dev));
    ok(comm_open(&m->one, m->dev, m->spec->kv_heads, m->spec->tied, 60, &m->comm));
    free(dir);
}

static void close_model(model *m) {
    comm_close(m->comm);
    m->dev->ops->close(m->dev);
    table_free(m->table);
    layout_free(m->stages);
    depth_free(m->plan);
    spec_free(m->spec);
    st_close(m->files);
}

static part *make_part(model *m, const part_shape *shape) {
    part *p = NULL;
    ok(part_make(m->spec, m->plan, m->stages, m->table, &m->one, shape, m->dev, &p));
    ok(weights_load(p, m->files, false));
    return p;
}

// Samples of documents of 1 to 12 tokens; the first of every other sample begins before it. Returns their
// number.
static int make_samples(const model *m, int32_t (*sample)[ROWS + 1], document *d) {
    uint32_t random = 12345;
    int documents = 0;
    for (int s = 0; s < SAMPLES; s++)
        for (int i = 0; i <= ROWS;) {
            int length = 1 + (int)((random = random * 1664525 + 1013904223) >> 16) % 12;
            if (length > ROWS + 1 - i) length = ROWS + 1 - i;
            d[documents++] = (document){s, i, length};
            for (int k = 0; k < length; k++) {
                random = random * 1664525 + 1013904223;
                sample[s][i + k] = (int32_t)((random >> 8) % (uint32_t)m->spec->vocab);
            }
            if (i > 0 || s % 2) sample[s][i] = ~sample[s][i];
            i += length;
        }
    return documents;
}

// Adds weight x gradient to sum[i] of every tensor.
static void add_gradients(part *p, double weight, double **sum) {
    for (int i = 0; i < p->weights; i++) {
        float *g = malloc((size_t)p->weight[i].n * sizeof *g);
        p->dev->ops->download(p->dev, g, p->weight[i].grad, (size_t)p->weight[i].n * sizeof *g);
        ok(p->dev->ops->sync(p->dev));
        if (!sum[i]) sum[i] = calloc((size_t)p->weight[i].n, sizeof **sum);
        for (int64_t k = 0; k < p->weight[i].n; k++) sum[i][k] += weight * (double)g[k];
        free(g);
    }
}

static void row_losses(part *p, comm *c, const token_rows *rows, int64_t batch, int64_t n, float *loss) {
    loss_sum sum = {0};
    ok(infer_loss(p, c, rows, batch, n, &sum));
    p->dev->ops->download(p->dev, loss, p->work.loss, (size_t)(batch * n) * sizeof *loss);
    ok(p->dev->ops->sync(p->dev));
}

// One document by itself: its losses to `loss`, its share of the gradients to sum.
static void run_alone(model *m, const int32_t *tokens, int length, double total, float *loss, double **sum) {
    int32_t ids[ROWS + 1];
    part_shape shape = {.use = PART_TRAIN, .batch = 1, .rows = length - 1, .micro = 1};
    part *p = make_part(m, &shape);
    trainer *t = NULL;
    step_report r;
    for (int i = 0; i < length; i++) ids[i] = tokens[i] < 0 ? ~tokens[i] : tokens[i];
    ok(trainer_open(p, m->comm, 1, &t));
    ok(train_gradients(t, ids, &r));
    assert_true(t->grad_scale == 1);
    add_gradients(p, (length - 1) / total, sum);
    row_losses(p, m->comm, &(token_rows){.input = ids, .target = ids + 1}, 1, length - 1, loss);
    trainer_close(t);
    part_free(p);
}

static double distance(const double *a, const double *b, int64_t n) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): documents that were run left sums
        diff += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(diff / norm);
}

// The packed run: losses of every row, and gradients.
static part *run_packed(model *m, int32_t (*sample)[ROWS + 1], recompute_kind recompute, float *loss,
                        double **sum, double *total, step_report *r) {
    part_shape shape = {.use = PART_TRAIN,
                        .batch = BATCH,
                        .rows = ROWS,

                        .micro = MICRO,
                        .recompute = recompute,
                        .mask_documents = true};
    part *p = make_part(m, &shape);
    trainer *t = NULL;
    token_rows rows;
    ok(trainer_open(p, m->comm, SAMPLES, &t));
    ok(train_gradients(t, sample[0], r));
    add_gradients(p, t->grad_scale, sum);
    trainer_close(t);
    ok(token_rows_make(&rows, SAMPLES * ROWS, true));
    samples_split(sample[0], SAMPLES, ROWS, &rows);
    *total = (double)samples_predicted(rows.target, SAMPLES * ROWS);
    for (int k = 0; k < MICRO; k++) {
        int at = k * BATCH * ROWS;
        row_losses(p, m->comm,
                   &(token_rows){rows.input + at, rows.target + at, rows.start + at, rows.position + at},
                   BATCH, ROWS, loss + at);
    }
    token_rows_free(&rows);
    return p;
}

static void compare_losses(const float *packed, const document *d, const float *alone) {
    for (int i = 0; i < d->length - 1; i++) {
        double error = fabs((double)packed[i] - (double)alone[i]);
        if (!(error <= 2e-5))
            fail_msg("sample %d, row %d: loss %g, alone %g", d->sample, d->row + i, packed[i], alone[i]);
    }
    bool last = d->row + d->length == ROWS + 1; // its last token is no input
    if (!last) assert_true(packed[d->length - 1] == 0);
}

static void documents_are_alone(void **state) {
    model m;
    int32_t sample[SAMPLES][ROWS + 1];
    document d[SAMPLES * MOST_DOCUMENTS];
    float packed[SAMPLES * ROWS], alone[ROWS];
    double total, mean = 0, *together[256] = {0}, *apart[256] = {0};
    step_report r;
    open_model(&m, *state);
    int documents = make_samples(&m, sample, d);
    part *p = run_packed(&m, sample, RECOMPUTE_NONE, packed, together, &total, &r);
    assert_true(total < SAMPLES * ROWS && total > 0.5 * SAMPLES * ROWS);
    for (int i = 0; i < documents; i++) {
        float *mine = packed + d[i].sample * ROWS + d[i].row;
        if (d[i].length < 2) continue; // nothing to predict
        run_alone(&m, &sample[d[i].sample][d[i].row], d[i].length, total, alone, apart);
        compare_losses(mine, &d[i], alone);
        for (int k = 0; k < d[i].length - 1; k++) mean += alone[k] / total;
    }
    assert_true(fabs(r.loss - mean) <= 1e-6 * mean);
    double squares = 0;
    for (int i = 0; i < p->weights; i++) {
        double error = distance(together[i], apart[i], p->weight[i].n);
        if (!(error <= 2e-5)) fail_msg("gradient of %s: relative error %g", p->weight[i].row->name, error);
        for (int64_t k = 0; k < p->weight[i].n; k++)
            squares += apart[i][k] * apart[i][k]; // NOLINT(clang-analyzer-core.NullDereference)
    }
    assert_true(fabs(r.grad_norm - sqrt(squares)) <= 1e-5 * sqrt(squares));
    for (int i = 0; i < 256; i++) free(together[i]), free(apart[i]);
    part_free(p);
    close_model(&m);
}

// Recomputing gives the same bits where documents are masked, too.
static void recomputed_too(void **state) {
    model m;
    int32_t sample[SAMPLES][ROWS + 1];
    document d[SAMPLES * MOST_DOCUMENTS];
    float loss[SAMPLES * ROWS];
    double total;
    (void)state;
    open_model(&m, "llama-gqa");
    make_samples(&m, sample, d);
    double *kept[256] = {0};
    step_report r;
    part *p = run_packed(&m, sample, RECOMPUTE_NONE, loss, kept, &total, &r);
    for (int kind = RECOMPUTE_SELECTIVE; kind <= RECOMPUTE_FULL; kind++) {
        double *again[256] = {0};
        part *q = run_packed(&m, sample, (recompute_kind)kind, loss, again, &total, &r);
        for (int i = 0; i < p->weights; i++)
            assert_memory_equal(again[i], kept[i], (size_t)p->weight[i].n * sizeof **kept);
        for (int i = 0; i < 256; i++) free(again[i]);
        part_free(q);
    }
    for (int i = 0; i < 256; i++) free(kept[i]);
    part_free(p);
    close_model(&m);
}

#define ALONE(name)                                                                                          \
    { "documents alone: " name, documents_are_alone, NULL, NULL, (void *)name }

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        ALONE("llama-gqa"),      ALONE("llama-bias"),   ALONE("llama-rope3"),
        ALONE("mistral-window"), ALONE("qwen2-window"), cmocka_unit_test(recomputed_too),
    };
    MPI_Init(&argc, &argv);
    int rc = cmocka_run_group_tests_name("mask", tests, NULL, NULL);
    MPI_Finalize();
    return rc;
}
