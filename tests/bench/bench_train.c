// Speed of the whole training step: bench_train MODEL fp32|bf16 THREADS [SECONDS] [SEQ]. One process, random
// weights, random tokens, one micro-batch a step, AdamW with clipping: what `solar train` does between two
// steps. Prints one line for the whole step and one for each operation that takes a percent of it.
//
// Useful FLOP of a token: 6 N + 6 L h T, N the elements of all matrices that tokens are multiplied by (the
// head, but not the embedding's look-up), L layers, h = heads x head size, T sequence length: of attention's
// 12 L h T only the half that a causal model needs. Peak is measured in registers before every step, since
// shared machines change their speed: a fraction is of its own step's peak.
#include <math.h>
#include <mpi.h>
#include <sys/resource.h>

#include "depth.h"
#include "measure.h"
#include "step.h"
#include "weights.h"

typedef struct model {
    const char *name;
    int64_t hidden, layers, heads, kv_heads, ffn, vocab, seq, batch;
} model;

static const model models[] = {
    {"stories", 64, 5, 8, 4, 172, 512, 512, 4},
    {"20m", 384, 12, 6, 6, 1024, 4096, 512, 4},
    {"110m", 768, 12, 12, 12, 2048, 32000, 1024, 2},
};

// ---- an ops table that measures the device's own

typedef enum timed {
    PRODUCT,
    ATTENTION,
    ATTENTION_GRAD,
    NORM,
    ROPE,
    GATE,
    LOSS,
    EMBED,
    ADD,
    SUMS,
    CLEAR,
    UPDATE,
    KINDS
} timed;
static const char *const timed_name[KINDS] = {"products",     "attention", "its gradient", "norms",
                                              "rope",         "swiglu",    "loss",         "embedding",
                                              "adds, copies", "sums",      "zeroing",      "adamw"};

typedef struct meter { // a benchmark may have a global: the table's functions have no other way to it
    const ops *real;
    double spent[KINDS];
    double flop; // of products
} meter;
static meter meters;

#define TIMED(kind, call)                                                                                    \
    do {                                                                                                     \
        double start = now();                                                                                \
        meters.real->call;                                                                                   \
        meters.spent[kind] += now() - start;                                                                 \
    } while (0)

static void t_product(device *d, const product *p) {
    TIMED(PRODUCT, product(d, p));
    meters.flop += 2.0 * (double)p->m * (double)p->n * (double)p->k;
}
static void t_attention(device *d, const attention *a) { TIMED(ATTENTION, attention(d, a)); }
static void t_attention_grad(device *d, const attention *a) { TIMED(ATTENTION_GRAD, attention_grad(d, a)); }
static void t_embed(device *d, dtype dt, void *y, const void *t, const int32_t *id, int64_t T, int64_t h,
                    int64_t first, int64_t rows) {
    TIMED(EMBED, embed(d, dt, y, t, id, T, h, first, rows));
}
static void t_embed_grad(device *d, dtype dt, float *t, const void *dy, const int32_t *id, int64_t T,
                         int64_t h, int64_t first, int64_t rows) {
    TIMED(EMBED, embed_grad(d, dt, t, dy, id, T, h, first, rows));
}
static void t_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                      const void *w, int64_t T, int64_t h, float eps) {
    TIMED(NORM, rmsnorm(d, dt, y, rstd, sum, x, delta, w, T, h, eps));
}
static void t_rmsnorm_grad(device *d, dtype dt, void *dx, float *dw, const void *residual, const void *dy,
                           const void *x, const void *w, const float *rstd, float *partial, int64_t T,
                           int64_t h) {
    TIMED(NORM, rmsnorm_grad(d, dt, dx, dw, residual, dy, x, w, rstd, partial, T, h));
}
static void t_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
                   const float *sin, int64_t T, int64_t heads, int64_t dim, bool inverse) {
    TIMED(ROPE, rope(d, dt, x, ld, pos, cos, sin, T, heads, dim, inverse));
}
static void t_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f) {
    TIMED(GATE, swiglu(d, dt, y, gu, T, f));
}
static void t_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T,
                          int64_t f) {
    TIMED(GATE, swiglu_grad(d, dt, dgu, dy, gu, T, f));
}
static void t_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                    int64_t T, int64_t v, int64_t first) {
    TIMED(LOSS, xent_stats(d, stats, logits, ld, targets, T, v, first));
}
static void t_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                    const int32_t *targets, int64_t T) {
    TIMED(LOSS, xent_merge(d, loss, lse, stats, parts, targets, T));
}
static void t_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                        const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first) {
    TIMED(LOSS, xent_grad(d, dt, grad, logits, ld, lse, targets, scale, T, v, first));
}
static void t_add(device *d, dtype dt, void *y, const void *x, int64_t n) { TIMED(ADD, add(d, dt, y, x, n)); }
static void t_copy(device *d, void *to, const void *from, size_t n) { TIMED(ADD, copy(d, to, from, n)); }
static void t_sumsq(device *d, double *out, const float *x, int64_t n) { TIMED(SUMS, sumsq(d, out, x, n)); }
static void t_sum(device *d, double *out, const float *x, int64_t n) { TIMED(SUMS, sum(d, out, x, n)); }
static void t_zero(device *d, void *p, size_t n) { TIMED(CLEAR, zero(d, p, n)); }
static void t_adamw(device *d, const adamw *a) { TIMED(UPDATE, adamw(d, a)); }

static ops metered(const ops *real) {
    ops t = *real;
    meters = (meter){.real = real};
    t.product = t_product, t.attention = t_attention, t.attention_grad = t_attention_grad;
    t.embed = t_embed, t.embed_grad = t_embed_grad, t.rmsnorm = t_rmsnorm, t.rmsnorm_grad = t_rmsnorm_grad;
    t.rope = t_rope, t.swiglu = t_swiglu, t.swiglu_grad = t_swiglu_grad, t.xent_stats = t_stats;
    t.xent_merge = t_merge, t.xent_grad = t_xent_grad, t.add = t_add, t.copy = t_copy, t.sumsq = t_sumsq;
    t.sum = t_sum, t.zero = t_zero, t.adamw = t_adamw;
    return t;
}

// ---- the model

typedef struct bench {
    model m;
    dtype dt;
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

static err *make_spec(const model *m, model_spec **out) {
    json_t *j =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:s, s:b, s:f}", "model_type", "llama",
                  "hidden_size", (json_int_t)m->hidden, "intermediate_size", (json_int_t)m->ffn,
                  "num_hidden_layers", (json_int_t)m->layers, "num_attention_heads", (json_int_t)m->heads,
                  "num_key_value_heads", (json_int_t)m->kv_heads, "vocab_size", (json_int_t)m->vocab,
                  "max_position_embeddings", (json_int_t)m->seq, "rms_norm_eps", 1e-5, "rope_theta", 1e4,
                  "hidden_act", "silu", "tie_word_embeddings", 1, "initializer_range", 0.02);
    if (!j) return err_new(ERR_SYSTEM, "no memory for a config");
    err *e = spec_parse(j, m->name, out);
    json_decref(j);
    return e;
}

static err *open_bench(bench *b, int threads) {
    err *e = NULL;
    mesh one;
    const model *m = &b->m;
    part_shape shape = {.dt = b->dt, .use = PART_TRAIN, .batch = m->batch, .rows = m->seq, .micro = 1};
    TRY(make_spec(m, &b->spec));
    TRY(mesh_make(1, 0, 1, 1, MESH_TDP, &one));
    TRY(depth_identity((int)m->layers, &b->plan));
    TRY(layout_make(b->plan, &(layout_shape){.pp = 1, .interleave = 1}, &b->stages));
    TRY(table_make(b->spec, b->plan, b->stages, &b->table));
    TRY(cpu_open(threads, &b->dev));
    TRY(comm_open(&one, b->dev, m->kv_heads, true, 60, &b->comm));
    TRY(part_make(b->spec, b->plan, b->stages, b->table, &one, &shape, b->dev, &b->part));
    TRY(weights_random(b->part, 1));
    for (int i = 0; i < b->part->weights; i++) {
        const weight *w = &b->part->weight[i];
        memset(w->m, 0, (size_t)w->n * 4);
        memset(w->v, 0, (size_t)w->n * 4);
    }
    TRY(trainer_open(b->part, b->comm, m->batch, &b->trainer));
    int64_t n = m->batch * (m->seq + 1);
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

static void close_bench(bench *b) {
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

static double useful_flop(const bench *b) { // of a token
    const model *m = &b->m;
    double n = 0;
    for (int i = 0; i < b->part->weights; i++)
        if (b->part->weight[i].row->decay) n += (double)b->part->weight[i].n;
    return 6 * n + 6.0 * (double)m->layers * (double)(b->spec->heads * b->spec->head_dim) * (double)m->seq;
}

static err *one_step(bench *b, double *seconds) {
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

// ---- the figures

enum { MOST = 2000 };

static void print_parts(double step, double peak) {
    double rest = step;
    printf("  of the step: products %.1f %% at %.1f %% of peak", 100 * meters.spent[PRODUCT] / step,
           1e-7 * meters.flop / meters.spent[PRODUCT] / peak);
    for (int k = 0; k < KINDS; k++) {
        double share = 100 * meters.spent[k] / step;
        rest -= meters.spent[k];
        if (k != PRODUCT && share >= 0.5) printf(", %s %.1f", timed_name[k], share);
    }
    printf(", rest %.1f\n", 100 * rest / step);
}

// Median of the steps' speeds, and their spread: half the distance between the quartiles.
static err *measure(bench *b, double budget) {
    err *e = NULL;
    static double rate[MOST], fraction[MOST], peaks[MOST];
    const cpu_device *c = (cpu_device *)b->dev;
    double tokens = (double)(b->m.batch * b->m.seq), flop = useful_flop(b), seconds, end;
    struct rusage used;
    int n = 0;
    TRY(one_step(b, &seconds)); // the first touches memory
    end = now() + budget;
    double piece = seconds < 0.1 ? seconds / 2 : 0.05;
    while (n < MOST && (n < 3 || now() < end)) {
        peaks[n] = measure_peak(c, b->dt, piece);
        TRY(one_step(b, &seconds));
        rate[n] = tokens / seconds;
        fraction[n] = 1e-7 * rate[n] * flop / peaks[n];
        n++;
    }
    getrusage(RUSAGE_SELF, &used);
    double speed = median(rate, n), spread = (rate[n * 3 / 4] - rate[n / 4]) / 2 / speed;
    printf(
        "solar %-7s %s %d threads, %lld x %lld tokens: %.1f tokens/s (+- %.1f %%, %d steps), %.1f %% of peak "
        "(%.1f GFLOP/s), %.1f kB/token\n",
        b->m.name, b->dt == DT_F32 ? "fp32" : "bf16", c->threads, (long long)b->m.batch, (long long)b->m.seq,
        speed, 100 * spread, n, median(fraction, n), median(peaks, n), (double)used.ru_maxrss / tokens);
    ops table = metered(b->dev->ops);
    b->dev->ops = &table;
    double total = 0, peak = measure_peak(c, b->dt, piece);
    for (int i = 0; i < 1 + n / 10 && !e; i++) {
        e = one_step(b, &seconds);
        total += seconds;
    }
    b->dev->ops = meters.real;
    if (!e) print_parts(total, peak);
done:
    return e;
}

static const model *find_model(const char *name) {
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (!strcmp(models[i].name, name)) return &models[i];
    return NULL;
}

int main(int argc, char **argv) {
    const model *m = argc > 3 ? find_model(argv[1]) : NULL;
    if (!m || (strcmp(argv[2], "fp32") && strcmp(argv[2], "bf16")) || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: bench_train stories|20m|110m fp32|bf16 THREADS [SECONDS] [SEQ]\n");
        return 2;
    }
    bench b = {.m = *m, .dt = strcmp(argv[2], "fp32") ? DT_BF16 : DT_F32};
    if (argc > 5) b.m.seq = atoll(argv[5]), b.m.batch = 1;
    MPI_Init(&argc, &argv);
    err *e = open_bench(&b, atoi(argv[3]));
    if (!e) e = measure(&b, argc > 4 ? atof(argv[4]) : 10);
    close_bench(&b);
    MPI_Finalize();
    if (!e) return 0;
    fprintf(stderr, "bench_train: %s\n", err_text(e));
    err_free(e);
    return 1;
}
