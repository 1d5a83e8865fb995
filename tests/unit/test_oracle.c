// The whole model against Hugging Face Transformers: logits, loss and the gradient of every tensor, on the
// tiny random models of tests/oracle/fixtures (its README says how they were made).
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

#include "depth.h"
#include "infer.h"
#include "safetensors.h"
#include "step.h"
#include "weights.h"

enum { BATCH = 2, ROWS = 24 }; // a sample is 25 tokens: 24 inputs and their 24 targets

typedef struct fixture {
    const char *model;    // folder
    const char *expected; // file in it
    const char *layers;   // depth plan, NULL: as it is
} fixture;

// One model on this rank, and what Transformers made of it.
typedef struct bench {
    st_set *files, *want;
    model_spec *base, *spec;
    depth_plan *plan;
    layout *stages;
    table *table;
    device *dev;
    comm *comm;
    part *part;
    trainer *trainer;
    int32_t samples[BATCH * (ROWS + 1)], inputs[BATCH * ROWS];
} bench;

// For the leak checker (SAN=1): what MPI keeps to the end is suppressed by the name of its library, which is
// found only when stacks are unwound whole (libc has no frame pointers).
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "fast_unwind_on_malloc=0"; }

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

// ---- what is expected

static char *fixture_path(const fixture *f, const char *name) {
    static const char dir[] = "tests/oracle/fixtures";
    const char *root = getenv("SOLAR_SOURCE");
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s/%s/%s", root ? root : ".", dir, f->model, name) > 0);
    return path;
}

static st_set *open_set(const fixture *f, const char *name) {
    st_set *s = NULL;
    char *path = fixture_path(f, name);
    ok(st_open(path, &s));
    free(path);
    return s;
}

static float as_float(const void *data, dtype dt, int64_t i) {
    return dt == DT_F32 ? ((const float *)data)[i] : bf16_to_float(((const bf16 *)data)[i]);
}

// All n elements of tensor PREFIX NAME; the caller frees.
static double *fetch(const st_set *s, const char *prefix, const char *name, int64_t n) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const st_tensor *t = st_find(s, full);
    if (!t) {
        fail_msg("the fixture has no tensor %s", full);
        return NULL;
    }
    assert_int_equal(t->bytes, (uint64_t)n * dtype_size(t->dt));
    void *raw = malloc(t->bytes);
    double *out = malloc((size_t)n * sizeof *out);
    assert_true(raw && out);
    ok(st_read(s, t, 0, raw, t->bytes));
    for (int64_t i = 0; i < n; i++) out[i] = (double)as_float(raw, t->dt, i);
    free(raw);
    return out;
}

// ---- squared distances: NaN on either side comes through, a reference of zero gives NaN or infinity

typedef struct distance {
    double diff, norm;
} distance;

static distance measure(const double *a, const double *b, int64_t n) {
    distance d = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        d.diff += (a[i] - b[i]) * (a[i] - b[i]);
        d.norm += b[i] * b[i];
    }
    return d;
}

static distance join(distance a, distance b) { return (distance){a.diff + b.diff, a.norm + b.norm}; }
static double relative(distance d) { return sqrt(d.diff / d.norm); }

// ---- the model

static void open_part(bench *b, dtype dt, part_use use) {
    mesh one;
    part_shape shape = {.dt = dt, .use = use, .batch = BATCH, .rows = ROWS, .micro = 1};
    ok(mesh_make(1, 0, 1, 1, MESH_TDP, &one));
    const char *kind = getenv("SOLAR_TEST_DEVICE"); // cuda: the same on the GPU
    ok(kind && strcmp(kind, "cuda") == 0 ? cuda_open(0, &b->dev) : cpu_open(1, &b->dev));
    ok(comm_open(&one, b->dev, b->spec->kv_heads, b->spec->tied, 60, &b->comm));
    ok(part_make(b->spec, b->plan, b->stages, b->table, &one, &shape, b->dev, &b->part));
    ok(weights_load(b->part, b->files, true));
    if (use == PART_TRAIN) ok(trainer_open(b->part, b->comm, BATCH, &b->trainer));
}

static void read_samples(bench *b) {
    double *ids = fetch(b->want, "", "ids", BATCH * (ROWS + 1));
    for (int i = 0; i < BATCH * (ROWS + 1); i++) b->samples[i] = (int32_t)ids[i];
    for (int i = 0; i < BATCH * ROWS; i++) b->inputs[i] = b->samples[i / ROWS * (ROWS + 1) + i % ROWS];
    free(ids);
}

static void open_bench(bench *b, const fixture *f, dtype dt, part_use use) {
    char *dir = fixture_path(f, "model");
    *b = (bench){.files = open_set(f, "model"), .want = open_set(f, "expected.safetensors")};
    ok(spec_load(dir, &b->base));
    free(dir);
    if (f->layers)
        ok(depth_from_ranges((int)b->base->layers, f->layers, &b->plan));
    else
        ok(depth_identity((int)b->base->layers, &b->plan));
    ok(spec_deepen(b->base, b->plan, &b->spec));
    ok(layout_make(b->plan, &(layout_shape){.pp = 1, .interleave = 1}, &b->stages));
    ok(table_make(b->spec, b->plan, b->stages, &b->table));
    read_samples(b);
    st_close(b->want);
    b->want = open_set(f, f->expected);
    open_part(b, dt, use);
}

static void close_bench(bench *b) {
    trainer_close(b->trainer);
    part_free(b->part);
    comm_close(b->comm);
    if (b->dev) b->dev->ops->close(b->dev);
    table_free(b->table);
    layout_free(b->stages);
    depth_free(b->plan);
    spec_free(b->spec);
    spec_free(b->base);
    st_close(b->want);
    st_close(b->files);
}

// ---- comparisons with PREFIX logits and gradients of the fixture

static double *our_logits(bench *b) {
    run r;
    part *p = b->part;
    int64_t vocab = b->spec->vocab, chunk = p->chunk, T = BATCH * ROWS;
    float *part_of = malloc((size_t)(chunk * vocab) * sizeof *part_of);
    double *out = malloc((size_t)(T * vocab) * sizeof *out);
    assert_true(part_of && out);
    ok(infer_forward(p, b->comm, &(token_rows){.input = b->inputs}, BATCH, ROWS, 0, &r));
    for (int64_t at = 0; at < T; at += chunk) {
        int64_t n = at + chunk < T ? chunk : T - at;
        ok(model_logits(&r, at, n));
        p->dev->ops->download(p->dev, part_of, p->work.logits, (size_t)(n * vocab) * sizeof *part_of);
        for (int64_t i = 0; i < n * vocab; i++) out[at * vocab + i] = (double)part_of[i];
    }
    ok(p->dev->ops->sync(p->dev));
    free(part_of);
    return out;
}

// Transformers' logits of the inputs: those of the last token of a sample are left out. The caller frees.
static double *their_logits(const bench *b, const char *prefix) {
    int64_t row = ROWS * b->spec->vocab, sample = row + b->spec->vocab;
    double *all = fetch(b->want, prefix, "logits", BATCH * sample);
    for (int64_t i = 1; i < BATCH; i++) memmove(all + i * row, all + i * sample, (size_t)row * sizeof *all);
    return all;
}

static distance logits_distance(const double *ours, const bench *b, const char *prefix) {
    double *want = their_logits(b, prefix);
    distance d = measure(ours, want, BATCH * ROWS * b->spec->vocab);
    free(want);
    return d;
}

static double *our_gradient(const bench *b, const weight *w) {
    device *d = b->part->dev;
    float *raw = malloc((size_t)w->n * sizeof *raw);
    double *out = malloc((size_t)w->n * sizeof *out);
    assert_true(raw && out);
    d->ops->download(d, raw, w->grad, (size_t)w->n * sizeof *raw);
    ok(d->ops->sync(d));
    for (int64_t i = 0; i < w->n; i++) out[i] = (double)raw[i];
    free(raw);
    return out;
}

static distance gradient_distance(const bench *b, const weight *w) {
    double *ours = our_gradient(b, w), *want = fetch(b->want, "grad.", w->row->name, w->n);
    distance d = measure(ours, want, w->n);
    free(ours);
    free(want);
    return d;
}

// Every gradient that Transformers has, and no other.
static void same_tensors(const bench *b) {
    int theirs = 0;
    for (int i = 0; i < st_count(b->want); i++) theirs += strncmp(st_at(b->want, i)->name, "grad.", 5) == 0;
    assert_int_equal(b->part->weights, theirs);
}

// ---- fp32: 1e-5 relative, tensor by tensor

static const double TOLERANCE = 1e-5;

static void check(const char *what, double error, double tolerance) {
    if (!(error <= tolerance))
        fail_msg("%s: relative error %g, at most %g is allowed", what, error, tolerance);
}

static void check_logits(bench *b, const char *what) {
    double *ours = our_logits(b), error = relative(logits_distance(ours, b, ""));
    free(ours);
    printf("  logits %.1e (%s)", error, what);
    check("logits", error, TOLERANCE);
}

static void check_gradients(bench *b) {
    const char *worst = "";
    double most = 0;
    same_tensors(b);
    for (int i = 0; i < b->part->weights; i++) {
        const weight *w = &b->part->weight[i];
        double error = relative(gradient_distance(b, w));
        check(w->row->name, error, TOLERANCE);
        if (error > most) {
            most = error;
            worst = w->row->name;
        }
    }
    printf("  gradients %.1e at most (%s)\n", most, worst);
}

static void matches(void **state) {
    const fixture *f = *state;
    bench b;
    step_report report;
    open_bench(&b, f, DT_F32, PART_INFER);
    printf("%s%s:", f->model, f->layers ? ", deepened" : "");
    check_logits(&b, "inference");
    close_bench(&b);

    open_bench(&b, f, DT_F32, PART_TRAIN);
    check_logits(&b, "training");
    ok(train_gradients(b.trainer, b.samples, &report));
    double *want = fetch(b.want, "", "loss", 1), error = fabs(report.loss - *want) / *want;
    printf("  loss %.1e", error);
    check("loss", error, TOLERANCE);
    check_gradients(&b);
    free(want);
    close_bench(&b);
}

// ---- bf16: rounding costs us at most twice what it costs Transformers in bf16, both against fp64

static distance their_distance(const bench *b, const weight *w) {
    double *rough = fetch(b->want, "bf16.grad.", w->row->name, w->n);
    double *exact = fetch(b->want, "grad.", w->row->name, w->n);
    distance d = measure(rough, exact, w->n);
    free(rough);
    free(exact);
    return d;
}

static void compare_bf16(const char *what, distance ours, distance theirs) {
    printf("  %s %.1e, Transformers %.1e\n", what, relative(ours), relative(theirs));
    check(what, relative(ours), 2 * relative(theirs));
}

static void bf16_logits(bench *b) {
    double *ours = our_logits(b), *rough = their_logits(b, "bf16.");
    compare_bf16("logits in bf16", logits_distance(ours, b, ""), logits_distance(rough, b, ""));
    free(ours);
    free(rough);
}

static void bf16_rounds_no_worse(void **state) {
    const fixture *f = *state;
    bench b;
    step_report report;
    distance ours = {0, 0}, theirs = {0, 0};
    open_bench(&b, f, DT_BF16, PART_TRAIN);
    bf16_logits(&b);
    ok(train_gradients(b.trainer, b.samples, &report));
    for (int i = 0; i < b.part->weights; i++) {
        const weight *w = &b.part->weight[i];
        distance a = gradient_distance(&b, w), t = their_distance(&b, w);
        compare_bf16(w->row->name, a, t);
        ours = join(ours, a);
        theirs = join(theirs, t);
    }
    compare_bf16("all gradients", ours, theirs);
    double *want = fetch(b.want, "", "loss", 1);
    check("loss in bf16", fabs(report.loss - *want) / *want, 1e-3);
    free(want);
    close_bench(&b);
}

// ---- new layers that begin as zeros pass through what comes in, bit for bit

static double *logits_of(const fixture *f, dtype dt) {
    bench b;
    open_bench(&b, f, dt, PART_INFER);
    double *out = our_logits(&b);
    close_bench(&b);
    return out;
}

static void new_layers_change_nothing(void **state) {
    static const fixture pairs[][2] = {
        {{"llama-bias", "expected.safetensors", NULL},
         {"llama-bias", "expected.safetensors", "0z,0,0z,1,1z"}},
        {{"llama-tied", "expected.safetensors", NULL}, {"llama-tied", "expected.safetensors", "0,0z,1,1z"}},
        {{"qwen2-window", "expected.safetensors", NULL},
         {"qwen2-window", "expected.safetensors", "0-1,0-1z,2"}},
    };
    (void)state;
    for (int i = 0; i < 6; i++) {
        const fixture *f = pairs[i / 2];
        dtype dt = i % 2 ? DT_BF16 : DT_F32;
        bench b;
        open_bench(&b, &f[0], dt, PART_INFER);
        int64_t n = BATCH * ROWS * b.spec->vocab;
        close_bench(&b);
        double *before = logits_of(&f[0], dt), *after = logits_of(&f[1], dt);
        assert_memory_equal(before, after, (size_t)n * sizeof *after);
        free(before);
        free(after);
    }
}

// ---- the comparison itself can fail

static void nan_is_a_difference(void **state) {
    (void)state;
    double good[3] = {1, 2, 3}, bad[3] = {1, NAN, 3}, zero[3] = {0, 0, 0};
    assert_true(relative(measure(good, good, 3)) <= TOLERANCE);
    assert_false(relative(measure(bad, good, 3)) <= TOLERANCE);
    assert_false(relative(measure(good, bad, 3)) <= TOLERANCE);
    assert_false(relative(measure(good, zero, 3)) <= TOLERANCE);
    assert_false(relative(measure(zero, zero, 3)) <= TOLERANCE);
}

#define FIXTURE(folder)    (&(fixture){folder, "expected.safetensors", NULL})
#define DEEP(folder, plan) (&(fixture){folder, "deep.safetensors", plan})
#define MATCHES(name, which)                                                                                 \
    { "transformers: " name, matches, NULL, NULL, (void *)which }

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nan_is_a_difference),
        MATCHES("llama, as many kv heads as heads, sharded files", FIXTURE("llama-mha")),
        MATCHES("llama, grouped queries", FIXTURE("llama-gqa")),
        MATCHES("llama, grouped queries, deepened", DEEP("llama-gqa", "0-2,1-3")),
        MATCHES("llama, one kv head, fp16 file", FIXTURE("llama-mqa")),
        MATCHES("llama, llama3 rope scaling", FIXTURE("llama-rope3")),
        MATCHES("llama, linear rope scaling", FIXTURE("llama-linear")),
        MATCHES("llama, explicit head_dim", FIXTURE("llama-headdim")),
        MATCHES("llama, biases", FIXTURE("llama-bias")),
        MATCHES("llama, tied embeddings", FIXTURE("llama-tied")),
        MATCHES("mistral, window shorter than the sequence", FIXTURE("mistral-window")),
        MATCHES("qwen2", FIXTURE("qwen2-gqa")),
        MATCHES("qwen2, tied, windows on some layers", FIXTURE("qwen2-window")),
        MATCHES("qwen2, tied, windows on some layers, deepened", DEEP("qwen2-window", "0-1,1-2")),
        MATCHES("llama, bf16 file computed in fp32", FIXTURE("llama-bf16")),
        cmocka_unit_test(new_layers_change_nothing),
        {"transformers: llama in bf16", bf16_rounds_no_worse, NULL, NULL, (void *)FIXTURE("llama-bf16")},
    };
    MPI_Init(&argc, &argv);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    MPI_Finalize();
    return rc;
}
