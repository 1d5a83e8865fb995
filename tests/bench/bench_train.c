// Speed of the whole training step: bench_train MODEL fp32|bf16 THREADS [SECONDS] [SEQ]. One process, random
// weights, random tokens, one micro-batch a step, AdamW with clipping: what `solar train` does between two
// steps. Prints one line for the whole step and one for each operation that takes a percent of it.
//
// Useful FLOP of a token: 6 N + 6 L h T, N the elements of all matrices that tokens are multiplied by (the
// head, but not the embedding's look-up), L layers, h = heads x head size, T sequence length: of attention's
// 12 L h T only the half that a causal model needs. Peak is measured in registers before every step, since
// shared machines change their speed: a fraction is of its own step's peak.
#include <sys/resource.h>

#include "bench_model.h"

static const model models[] = {
    {"stories", 64, 5, 8, 4, 172, 512, 512, 4, false},
    {"20m", 384, 12, 6, 6, 1024, 4096, 512, 4, false},
    {"110m", 768, 12, 12, 12, 2048, 32000, 1024, 2, false},
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
static void t_embed_grad(device *d, dtype dt, dtype gdt, void *t, const void *dy, const int32_t *id,
                         int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows) {
    TIMED(EMBED, embed_grad(d, dt, gdt, t, dy, id, chain, T, h, first, rows));
}
static void t_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                      const void *w, int64_t T, int64_t h, float eps) {
    TIMED(NORM, rmsnorm(d, dt, y, rstd, sum, x, delta, w, T, h, eps));
}
static void t_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                           const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                           int64_t T, int64_t h) {
    TIMED(NORM, rmsnorm_grad(d, dt, gdt, dx, dw, residual, dy, x, w, rstd, partial, T, h));
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
static void t_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n) {
    TIMED(SUMS, sumsq(d, out, dt, x, n));
}
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

static err *open_bench(bench *b, int threads) {
    err *e = NULL;
    b->micro = 1;
    TRY(cpu_open(threads, &b->dev));
    TRY(open_model(b, &(part_shape){0}));
    TRY(weights_random(b->part, 1));
    for (int i = 0; i < b->part->weights; i++) {
        const weight *w = &b->part->weight[i];
        memset(w->m, 0, (size_t)w->n * 4);
        memset(w->v, 0, (size_t)w->n * 4);
    }
done:
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
    printf("solar %-7s %s %d threads (%s), %lld x %lld tokens: %.1f tokens/s (+- %.1f %%, %d steps), "
           "%.1f %% of peak (%.1f GFLOP/s), %.1f kB/token\n",
           b->m.name, b->dt == DT_F32 ? "fp32" : "bf16", c->threads, c->lanes->name, (long long)b->m.batch,
           (long long)b->m.seq, speed, 100 * spread, n, median(fraction, n), median(peaks, n),
           (double)used.ru_maxrss / tokens);
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
