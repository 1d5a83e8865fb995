// Speed of the CPU ops: `bench_ops [threads]`. Products and attention in GFLOP/s beside the peak that the
// multiply loop reaches on data in the first cache, and products also by oneDNN where it was there to build
// with; everything else in GB/s
// beside a copy. Every figure is the median of several runs. Not a test: numbers depend on the machine and
// on who else is using it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu.h"
#include "onednn.h"

typedef struct bench {
    device *dev;
    const ops *ops;
    onednn *dnn;
    char *pool; // POOL bytes of small numbers, of which every buffer is cut
    size_t used;
    double peak, copy; // GFLOP/s, GB/s
} bench;

static const size_t POOL = (size_t)1 << 30;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void work(bench *b, const void *what);

// Median seconds of one call: 9 samples, each long enough for the clock.
static double seconds(bench *b, work *f, const void *what) {
    enum { SAMPLES = 9 };
    double sample[SAMPLES], start = now();
    f(b, what); // first call: caches fill
    double once = now() - start;
    int repeats = once > 2e-3 ? 1 : (int)(2e-3 / (once + 1e-7)) + 1;
    for (int s = 0; s < SAMPLES; s++) {
        start = now();
        for (int i = 0; i < repeats; i++) f(b, what);
        sample[s] = (now() - start) / repeats;
    }
    qsort(sample, SAMPLES, sizeof *sample, by_value);
    return sample[SAMPLES / 2];
}

static void *take(bench *b, size_t bytes) {
    void *p = b->pool + b->used;
    b->used += (bytes + 63) / 64 * 64;
    if (b->used > POOL) {
        fprintf(stderr, "bench_ops: a shape needs more than %zu bytes\n", POOL);
        exit(1);
    }
    return p;
}

static void fill(bench *b, dtype dt) {
    b->used = 0;
    for (size_t i = 0; i < POOL / 64 / 4; i++) { // a sixteenth is enough for every operand below
        float x = (float)((i * 2654435761u >> 8) & 0xffff) / 65536.0f - 0.5f;
        if (dt == DT_F32)
            ((float *)b->pool)[i] = x;
        else
            ((bf16 *)b->pool)[i] = bf16_from_float(x);
    }
}

// ---- the yardsticks

static void peak_work(bench *b, const void *what) {
    const cpu_device *c = (cpu_device *)b->dev;
    const tile *t = what;
#pragma omp parallel num_threads(c->threads) if (c->threads > 1)
    {
        float out[64 * 64];
        tile own = *t;
        own.c = out;
        for (int i = 0; i < 100; i++) c->lanes->multiply(&own);
        __asm__ volatile("" : : "r"(out) : "memory");
    }
}

static void copy_work(bench *b, const void *what) {
    const size_t *bytes = what;
    b->ops->cast(b->dev, DT_F32, b->pool, DT_F32, b->pool + *bytes, (int64_t)*bytes / 4);
}

static void measure_yardsticks(bench *b) {
    const cpu_device *c = (cpu_device *)b->dev;
    const float *x = (float *)b->pool;
    int64_t k = 64, strip = c->lanes->strip;
    tile t = {.m = 64, .n = 64, .k = k, .a = x, .a_strip = strip * k, .a_row = k, .a_col = 1, .b = x + 8192};
    t.b_panel = PANEL * k, t.b_row = PANEL, t.ldc = 64;
    b->peak = 100 * 2e-9 * 64 * 64 * (double)k * c->threads / seconds(b, peak_work, &t);
    size_t bytes = (size_t)128 << 20;
    b->copy = 2e-9 * (double)bytes / seconds(b, copy_work, &bytes);
    printf("instruction set %s, %d threads, bf16 products by %s\n", c->lanes->name, c->threads,
           c->lanes->multiply_pairs ? "dot instructions" : "fp32 loops");
    printf("peak %.1f GFLOP/s (multiply loop, first cache), copy %.1f GB/s\n", b->peak, b->copy);
}

// ---- products

static void product_work(bench *b, const void *what) { b->ops->product(b->dev, what); }

static void onednn_work(bench *b, const void *what) {
    err *e = onednn_product(b->dnn, what);
    if (!e) return;
    fprintf(stderr, "bench_ops: %s\n", err_text(e));
    exit(1);
}

static product make_product(bench *b, dtype dt, int64_t m, int64_t n, int64_t k, bool ta, bool tb, bool add) {
    product p = {.dt = dt, .cdt = add ? DT_F32 : dt, .trans_a = ta, .trans_b = tb, .accumulate = add};
    p.m = m, p.n = n, p.k = k, p.lda = ta ? m : k, p.ldb = tb ? k : n, p.ldc = n;
    p.a = take(b, (size_t)(m * k) * dtype_size(dt));
    p.b = take(b, (size_t)(n * k) * dtype_size(dt));
    p.c = take(b, (size_t)(m * n) * 4);
    return p;
}

static void product_line(bench *b, const char *name, const product *p) {
    double flop = 2e-9 * (double)p->m * (double)p->n * (double)p->k, own = seconds(b, product_work, p);
    printf("  %-7s %-4s %5lld x %5lld x %5lld  %7.1f GFLOP/s  %3.0f%% of peak  %9.1f us", name,
           p->dt == DT_F32 ? "fp32" : "bf16", (long long)p->m, (long long)p->n, (long long)p->k, flop / own,
           100 * flop / own / b->peak, own * 1e6);
    if (b->dnn) printf("   oneDNN %7.1f", flop / seconds(b, onednn_work, p));
    printf("\n");
}

static void products(bench *b) {
    static const int64_t shape[][3] = {// tokens, in, out
                                       {64, 64, 64},      {512, 64, 172},   {512, 128, 128},
                                       {512, 288, 768},   {2048, 288, 768}, {512, 768, 2048},
                                       {512, 1024, 4096}, {1, 768, 2048},   {512, 288, 32000}};
    for (dtype dt = DT_F32; dt <= DT_BF16; dt++) {
        printf("products, tokens x in -> out: y = x W^T, dx = dy W, dW += dy^T x\n");
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
            int64_t T = shape[i][0], in = shape[i][1], out = shape[i][2];
            fill(b, dt);
            product forward = make_product(b, dt, T, out, in, false, true, false);
            product back = make_product(b, dt, T, in, out, false, false, false);
            product weight = make_product(b, dt, out, in, T, true, false, true);
            product_line(b, "forward", &forward);
            product_line(b, "dx", &back);
            product_line(b, "dW", &weight);
        }
    }
}

// ---- attention

static void attention_work(bench *b, const void *what) { b->ops->attention(b->dev, what); }
static void attention_grad_work(bench *b, const void *what) { b->ops->attention_grad(b->dev, what); }

// Products of the visible half only: 2 forward, 5 backward.
static void attention_lines(bench *b, dtype dt, const int64_t *s) {
    int64_t batch = s[0], rows = s[1], heads = s[2], kv = s[3], dim = s[4], q = heads * dim, k = kv * dim;
    size_t row = (size_t)(batch * rows) * dtype_size(dt);
    fill(b, dt);
    attention a = {.dt = dt, .batch = batch, .rows = rows, .q_rows = rows, .heads = heads, .kv_heads = kv};
    a.head_dim = dim, a.scale = 0.1f, a.ld = q + 2 * k, a.ld_out = q;
    char *qkv = take(b, row * (size_t)a.ld), *grad = take(b, row * (size_t)a.ld);
    a.out = take(b, row * (size_t)q), a.d_out = take(b, row * (size_t)q);
    a.lse = take(b, (size_t)(batch * heads * rows) * 4),
    a.delta = take(b, (size_t)(batch * heads * rows) * 4);
    a.q = qkv, a.k = element(dt, qkv, q), a.v = element(dt, qkv, q + k);
    a.dq = grad, a.dk = element(dt, grad, q), a.dv = element(dt, grad, q + k);
    double flop = 2e-9 * (double)(batch * heads * dim) * (double)rows * (double)(rows + 1) / 2;
    double forward = 2 * flop / seconds(b, attention_work, &a),
           back = 5 * flop / seconds(b, attention_grad_work, &a);
    printf("  %s batch %lld rows %4lld heads %2lld/%-2lld dim %3lld  forward %6.1f GFLOP/s (%2.0f%%)  "
           "backward %6.1f "
           "(%2.0f%%)\n",
           dt == DT_F32 ? "fp32" : "bf16", (long long)batch, (long long)rows, (long long)heads, (long long)kv,
           (long long)dim, forward, 100 * forward / b->peak, back, 100 * back / b->peak);
}

static void attentions(bench *b) {
    static const int64_t shape[][5] = {
        {4, 256, 8, 4, 8}, {4, 256, 4, 4, 32}, {2, 512, 6, 6, 48}, {1, 1024, 8, 2, 64}, {1, 2048, 4, 1, 128}};
    printf("attention (useful products only; exp and masked halves are overhead)\n");
    for (dtype dt = DT_F32; dt <= DT_BF16; dt++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) attention_lines(b, dt, shape[i]);
}

// ---- memory-bound ops

enum { T = 2048, H = 768, F = 2048, V = 32000, ROWS = 256 };

typedef struct row_ops {
    dtype dt;
    void *x, *y, *z, *w, *s;
    int32_t *token;
} row_ops;

static void norm_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->rmsnorm(b->dev, r->dt, r->y, r->s, r->z, r->x, r->z, r->w, T, H, 1e-5f);
}
static void norm_grad_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->rmsnorm_grad(b->dev, r->dt, DT_F32, r->z, r->w, r->z, r->y, r->x, r->w, r->s, (float *)r->s + T,
                         T, H);
}
static void swiglu_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->swiglu(b->dev, r->dt, r->y, r->x, T, F);
}
static void swiglu_grad_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->swiglu_grad(b->dev, r->dt, r->z, r->y, r->x, T, F);
}
static void rope_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->rope(b->dev, r->dt, r->x, H, r->token, r->w, r->w, T, 12, 64, false);
}
static void add_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->add(b->dev, r->dt, r->y, r->x, T * H);
}
static void embed_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->embed(b->dev, r->dt, r->y, r->x, r->token, T, H, 0, V);
}
static void xent_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->xent_stats(b->dev, r->s, r->x, V, r->token, ROWS, V, 0);
}
static void xent_grad_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->xent_grad(b->dev, r->dt, r->y, r->x, V, r->s, r->token, 1, ROWS, V, 0);
}
static void sumsq_work(bench *b, const void *what) {
    const row_ops *r = what;
    b->ops->sumsq(b->dev, r->s, DT_F32, r->x, T * F);
}
static void adamw_work(bench *b, const void *what) {
    const row_ops *r = what;
    adamw a = {.dt = r->dt,
               .n = T * F,
               .weight = r->x,
               .rest = r->dt == DT_F32 ? NULL : r->w,
               .m = r->y,
               .v = (float *)r->y + T * F,
               .grad = r->z,
               .grad_scale = 1,
               .lr = 1e-3f,
               .beta1 = 0.9f,
               .beta2 = 0.95f,
               .eps = 1e-8f,
               .step = 10};
    b->ops->adamw(b->dev, &a);
}

static void line(bench *b, const char *name, work *f, const row_ops *r, double bytes) {
    double speed = 1e-9 * bytes / seconds(b, f, r);
    printf("  %-12s %s %6.1f GB/s  %3.0f%% of copy\n", name, r->dt == DT_F32 ? "fp32" : "bf16", speed,
           100 * speed / b->copy);
}

static void rows(bench *b) {
    printf("rows: %d x %d (hidden), %d (feed-forward), %d x %d (vocabulary)\n", T, H, F, ROWS, V);
    for (dtype dt = DT_F32; dt <= DT_BF16; dt++) {
        fill(b, dt);
        size_t most = (size_t)T * F * 8 + (size_t)V * H * 4;
        row_ops r = {
            .dt = dt, .x = take(b, most), .y = take(b, most), .z = take(b, most), .w = take(b, most)};
        r.s = take(b, (size_t)(T + ops_norm_partial(T, H)) * 4), r.token = take(b, T * sizeof *r.token);
        for (int i = 0; i < T; i++) r.token[i] = (i * 7919) % T;
        double e = (double)dtype_size(dt), h = (double)T * H * e, f = (double)T * F * e, v = (double)ROWS * V;
        line(b, "rmsnorm", norm_work, &r, 4 * h);
        line(b, "rmsnorm_grad", norm_grad_work, &r, 4 * h);
        line(b, "rope", rope_work, &r, 2 * h);
        line(b, "swiglu", swiglu_work, &r, 3 * f);
        line(b, "swiglu_grad", swiglu_grad_work, &r, 5 * f);
        line(b, "add", add_work, &r, 3 * h);
        line(b, "embed", embed_work, &r, 2 * h);
        line(b, "xent_stats", xent_work, &r, 4 * v);
        line(b, "xent_grad", xent_grad_work, &r, (4 + e) * v);
        line(b, "sumsq", sumsq_work, &r, 4.0 * T * F);
        line(b, "adamw", adamw_work, &r, 28.0 * T * F);
    }
}

static void print_processor(void) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char text[256];
    while (f && fgets(text, sizeof text, f))
        if (!strncmp(text, "model name", 10) || !strncmp(text, "flags", 5)) {
            text[strcspn(text, "\n")] = 0;
            if (text[0] == 'm') printf("%s\n", text);
            if (text[0] == 'f') break;
        }
    if (f) fclose(f);
}

int main(int argc, char **argv) {
    bench b = {0};
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    err *e = cpu_open(threads, &b.dev);
    if (!e) e = onednn_open(threads, &b.dnn);
    if (!e) e = b.dev->ops->alloc(b.dev, POOL, (void **)&b.pool);
    if (e) {
        fprintf(stderr, "bench_ops: %s\n", err_text(e));
        err_free(e);
        return 1;
    }
    b.ops = b.dev->ops;
    memset(b.pool, 0, POOL);
    print_processor();
    fill(&b, DT_F32);
    measure_yardsticks(&b);
    products(&b);
    attentions(&b);
    rows(&b);
    b.ops->free(b.dev, b.pool);
    onednn_close(b.dnn);
    b.ops->close(b.dev);
    return 0;
}
