// Speed of the GPU's ops, in the shapes of a SOLAR-like layer: `bench_gpu_ops [tiny]`.
// Products in TFLOP/s: by the algorithm that a run takes, and by the fastest of all that cuBLASLt names.
// Attention in TFLOP/s of the visible half, 2 products forward and 5 backward. Everything else in GB/s of
// what has to be read and written, beside a copy. Medians of several samples, each of calls that are queued
// one behind the other. With `tiny` the shapes are small and each call is timed once: it shows that all of it
// runs, not how fast. Without a GPU it says so, and its exit status is 77.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ops.h"

enum { SKIPPED = 77, SAMPLES = 5 };

typedef struct shapes {
    int64_t T, h, f, heads, kv, dim, vocab, chunk, cube, params;
} shapes;

typedef struct bench {
    shapes s;
    device *dev, *fastest; // products: the first algorithm, and the fastest
    char *pool;            // of which every buffer is cut
    size_t size, used;
    double copy, sample; // GB/s of a copy; least seconds of a sample
} bench;

typedef void work(bench *b, device *d, const void *what);

static void stop(bench *b, err *e) {
    if (!e) return;
    fprintf(stderr, "bench_gpu_ops: %s\n", err_text(e));
    b->dev->ops->close(b->dev);
    exit(1);
}

// ---- time

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Seconds of `calls` calls, queued one behind the other.
static double run(bench *b, device *d, work *f, const void *what, int64_t calls) {
    double start = now();
    for (int64_t i = 0; i < calls; i++) f(b, d, what);
    stop(b, d->ops->sync(d));
    return now() - start;
}

// Median seconds of one call.
static double seconds_on(bench *b, device *d, work *f, const void *what) {
    double sample[SAMPLES], once = run(b, d, f, what, 1); // the first call loads code and chooses algorithms
    if (b->sample == 0) return once;
    once = run(b, d, f, what, 3) / 3;
    int64_t calls = 1 + (int64_t)(b->sample / (once + 1e-9));
    for (int i = 0; i < SAMPLES; i++) sample[i] = run(b, d, f, what, calls) / (double)calls;
    qsort(sample, SAMPLES, sizeof *sample, by_value);
    return sample[SAMPLES / 2];
}

static double seconds(bench *b, work *f, const void *what) { return seconds_on(b, b->dev, f, what); }

// ---- memory: small numbers, whether they are read as bf16 or as fp32

static void *take(bench *b, int64_t bytes) {
    void *p = b->pool + b->used;
    b->used += (size_t)(bytes + 255) / 256 * 256;
    if (b->used > b->size)
        stop(b, err_new(ERR_SYSTEM, "a shape needs more than the %zu bytes that are there", b->size));
    return p;
}

static void fill(bench *b) {
    enum { BYTES = 1 << 20 };
    bf16 *host = malloc(BYTES);
    if (!host) stop(b, err_new(ERR_SYSTEM, "no memory for %d bytes", BYTES));
    for (uint32_t i = 0; i < BYTES / 2; i++)
        host[i] = bf16_from_float((float)((i * 2654435761u >> 8) & 0xffff) / 65536.0f - 0.5f);
    b->dev->ops->upload(b->dev, b->pool, host, BYTES);
    free(host);
    for (size_t have = BYTES; have < b->size; have *= 2)
        b->dev->ops->copy(b->dev, b->pool + have, b->pool, have < b->size - have ? have : b->size - have);
}

// Enough for the greatest product, which is of all layers' widest, and for AdamW.
static err *make_pool(bench *b) {
    const shapes *s = &b->s;
    int64_t tokens = 3 * s->T * (2 * s->f + s->h) * 2, weights = 2 * s->f * s->h * 6;
    int64_t head = s->chunk * s->vocab * 8 + s->vocab * s->h * 6, cube = 3 * s->cube * s->cube * 2;
    b->size = (size_t)(tokens + weights + head + cube + s->params * 20 + (1 << 20));
    return b->dev->ops->alloc(b->dev, b->size, (void **)&b->pool);
}

// ---- products

static void product_work(bench *b, device *d, const void *what) {
    (void)b;
    d->ops->product(d, what);
}

static void product_line(bench *b, const char *name, product p) {
    b->used = 0;
    p.lda = p.trans_a ? p.m : p.k, p.ldb = p.trans_b ? p.k : p.n, p.ldc = p.n;
    p.dt = DT_BF16, p.cdt = p.accumulate ? DT_F32 : DT_BF16;
    p.a = take(b, p.m * p.k * 2), p.b = take(b, p.n * p.k * 2);
    p.c = take(b, p.m * p.n * (int64_t)dtype_size(p.cdt));
    double flop = 2e-12 * (double)p.m * (double)p.n * (double)p.k, first = seconds(b, product_work, &p);
    double best = seconds_on(b, b->fastest, product_work, &p);
    printf("%-12s %6lld x %6lld x %6lld  %9.1f us  %6.1f TFLOP/s  %5.1f %% of the fastest's %6.1f\n", name,
           (long long)p.m, (long long)p.n, (long long)p.k, first * 1e6, flop / first, 100 * best / first,
           flop / best);
}

// The three products of a linear layer, as the step does them.
static void linear_lines(bench *b, const char *name, int64_t T, int64_t in, int64_t out) {
    static const char *const what[] = {"y", "dx", "dW"};
    product p[] = {{.trans_b = true, .m = T, .n = out, .k = in},
                   {.m = T, .n = in, .k = out},
                   {.trans_a = true, .accumulate = true, .m = out, .n = in, .k = T}};
    for (int i = 0; i < 3; i++) {
        char label[32];
        snprintf(label, sizeof label, "%s %s", name, what[i]);
        product_line(b, label, p[i]);
    }
}

static void products(bench *b) {
    const shapes *s = &b->s;
    printf("\nproducts, bf16, m x n x k\n");
    product_line(b, "cube", (product){.trans_b = true, .m = s->cube, .n = s->cube, .k = s->cube});
    linear_lines(b, "qkv", s->T, s->h, (s->heads + 2 * s->kv) * s->dim);
    linear_lines(b, "o", s->T, s->heads * s->dim, s->h);
    linear_lines(b, "gate_up", s->T, s->h, 2 * s->f);
    linear_lines(b, "down", s->T, s->f, s->h);
    linear_lines(b, "head", s->chunk, s->h, s->vocab);
}

// ---- attention

static void attention_work(bench *b, device *d, const void *what) {
    (void)b;
    d->ops->attention(d, what);
}
static void attention_grad_work(bench *b, device *d, const void *what) {
    (void)b;
    d->ops->attention_grad(d, what);
}

// Pairs of a query and a key that it sees, of one head.
static double pairs(int64_t rows, int64_t window) {
    double n = (double)rows, w = window > 0 && window < rows ? (double)window : n;
    return w * (w + 1) / 2 + (n - w) * w;
}

static void attention_line(bench *b, int64_t batch, int64_t rows, int64_t heads, int64_t kv, int64_t dim,
                           int64_t window) {
    int64_t q = heads * dim, k = kv * dim, ld = q + 2 * k, T = batch * rows;
    b->used = 0;
    bf16 *qkv = take(b, T * ld * 2), *grad = take(b, T * ld * 2);
    attention a = {.dt = DT_BF16,
                   .batch = batch,
                   .rows = rows,
                   .q_rows = rows,
                   .heads = heads,
                   .kv_heads = kv,
                   .head_dim = dim,
                   .window = window,
                   .scale = (float)(1 / sqrt((double)dim)),
                   .q = qkv,
                   .k = qkv + q,
                   .v = qkv + q + k,
                   .ld = ld,
                   .out = take(b, T * q * 2),
                   .ld_out = q,
                   .lse = take(b, T * heads * 4),
                   .d_out = take(b, T * q * 2),
                   .dq = grad,
                   .dk = grad + q,
                   .dv = grad + q + k,
                   .delta = take(b, T * heads * 4)};
    double flop = 2e-12 * (double)(batch * heads * dim) * pairs(rows, window);
    double forward = seconds(b, attention_work, &a), back = seconds(b, attention_grad_work, &a);
    printf("batch %lld rows %5lld heads %2lld/%lld dim %3lld window %4lld  forward %9.1f us %6.1f TFLOP/s  "
           "backward %9.1f us %6.1f TFLOP/s\n",
           (long long)batch, (long long)rows, (long long)heads, (long long)kv, (long long)dim,
           (long long)window, forward * 1e6, 2 * flop / forward, back * 1e6, 5 * flop / back);
}

static void attentions(bench *b) {
    const shapes *s = &b->s;
    printf("\nattention, bf16, causal\n");
    attention_line(b, 1, s->T, s->heads, s->kv, s->dim, 0);
    attention_line(b, 1, s->T, s->heads, s->kv, s->dim, s->T / 4);
    attention_line(b, 4, s->T / 4, s->heads, s->kv, s->dim, 0);
    attention_line(b, 1, s->T, s->heads, s->heads, s->dim / 2, 0);
}

// ---- memory-bound ops

typedef struct row_ops {
    void *x, *y, *z, *w, *s, *partial; // x and y: up to T x 2f; z: T x f
    int32_t *token;
} row_ops;

static void copy_work(bench *b, device *d, const void *what) {
    const size_t *bytes = what;
    d->ops->copy(d, b->pool + *bytes, b->pool, *bytes);
}
static void norm_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->rmsnorm(d, DT_BF16, r->y, r->s, r->z, r->x, r->z, r->w, b->s.T, b->s.h, 1e-5f);
}
static void norm_grad_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->rmsnorm_grad(d, DT_BF16, DT_F32, r->z, r->partial, r->z, r->y, r->x, r->w, r->s,
                         (float *)r->partial + b->s.h, b->s.T, b->s.h);
}
static void rope_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    const shapes *s = &b->s;
    d->ops->rope(d, DT_BF16, r->x, (s->heads + 2 * s->kv) * s->dim, r->token, r->w, r->w, s->T,
                 s->heads + s->kv, s->dim, false);
}
static void swiglu_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->swiglu(d, DT_BF16, r->z, r->x, b->s.T, b->s.f);
}
static void swiglu_grad_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->swiglu_grad(d, DT_BF16, r->y, r->z, r->x, b->s.T, b->s.f);
}
static void add_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->add(d, DT_BF16, r->y, r->x, b->s.T * b->s.h);
}
static void embed_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->embed(d, DT_BF16, r->y, r->w, r->token, b->s.T, b->s.h, 0, b->s.vocab);
}
static void embed_grad_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->embed_grad(d, DT_BF16, DT_F32, r->w, r->y, r->token, r->x, b->s.T, b->s.h, 0, b->s.vocab);
}
static void stats_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->xent_stats(d, r->s, r->w, b->s.vocab, r->token, b->s.chunk, b->s.vocab, 0);
}
static void xent_grad_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->xent_grad(d, DT_BF16, r->y, r->w, b->s.vocab, r->s, r->token, 1, b->s.chunk, b->s.vocab, 0);
}
static void sumsq_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    d->ops->sumsq(d, r->s, DT_F32, r->w, b->s.params);
}
static void adamw_work(bench *b, device *d, const void *what) {
    const row_ops *r = what;
    int64_t n = b->s.params;
    char *p = r->w;
    d->ops->adamw(d, &(adamw){.dt = DT_BF16,
                              .n = n,
                              .grad = (float *)p,
                              .m = (float *)p + n,
                              .v = (float *)p + 2 * n,
                              .weight = p + 12 * n,
                              .rest = (int16_t *)(p + 14 * n),
                              .grad_scale = 1,
                              .lr = 1e-6f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .step = 10});
}

static void line(bench *b, const char *name, work *f, const row_ops *r, double bytes) {
    double time = seconds(b, f, r), speed = 1e-9 * bytes / time;
    printf("%-14s %9.1f us  %7.1f GB/s  %5.1f %% of a copy\n", name, time * 1e6, speed,
           100 * speed / b->copy);
}

// Buffers of the ops on rows; those of `w` and what is behind it overlap, as no op uses all of them.
static row_ops buffers(bench *b) {
    const shapes *s = &b->s;
    b->used = 0;
    row_ops r = {.s = take(b, s->T * 16),
                 .partial = take(b, (ops_norm_partial(s->T, s->h) + s->h) * 4),
                 .token = take(b, s->T * 4),
                 .x = take(b, s->T * 2 * s->f * 2),
                 .y = take(b, s->T * 2 * s->f * 2),
                 .z = take(b, s->T * s->f * 2)};
    r.w = b->pool + b->used;
    int32_t *token = malloc((size_t)s->T * sizeof *token);
    if (!token) stop(b, err_new(ERR_SYSTEM, "no memory for tokens"));
    for (int64_t t = 0; t < s->T; t++) token[t] = (int32_t)(t * 7919 % s->T % s->vocab);
    b->dev->ops->upload(b->dev, r.token, token, (size_t)s->T * sizeof *token);
    free(token);
    return r;
}

static void rows(bench *b) {
    const shapes *s = &b->s;
    row_ops r = buffers(b);
    double h = 2.0 * (double)(s->T * s->h), f = 2.0 * (double)(s->T * s->f),
           v = (double)(s->chunk * s->vocab);
    double n = (double)s->params, q = 2.0 * (double)(s->T * (s->heads + s->kv) * s->dim);
    const size_t half = b->size / 2 / 256 * 256;
    b->copy = 2e-9 * (double)half / seconds(b, copy_work, &half);
    printf("\nmemory-bound ops, bf16: %lld rows of %lld, %lld x %lld logits, %lld parameters; a copy %.0f "
           "GB/s\n",
           (long long)s->T, (long long)s->h, (long long)s->chunk, (long long)s->vocab, (long long)s->params,
           b->copy);
    fill(b);
    r = buffers(b);
    line(b, "rmsnorm", norm_work, &r, 4 * h);
    line(b, "rmsnorm_grad", norm_grad_work, &r, 4 * h);
    line(b, "rope", rope_work, &r, 2 * q);
    line(b, "swiglu", swiglu_work, &r, 3 * f);
    line(b, "swiglu_grad", swiglu_grad_work, &r, 5 * f);
    line(b, "add", add_work, &r, 3 * h);
    line(b, "embed", embed_work, &r, 2 * h);
    line(b, "embed_grad", embed_grad_work, &r, 5 * h); // bf16 read, fp32 read and written
    fill(b);
    r = buffers(b);
    line(b, "xent_stats", stats_work, &r, 4 * v);
    line(b, "xent_grad", xent_grad_work, &r, 6 * v);
    line(b, "sumsq", sumsq_work, &r, 4 * n);
    line(b, "adamw", adamw_work, &r, 28 * n);
}

// ---- opening

static err *open_bench(bench *b) {
    err *e = NULL;
    unsetenv("SOLAR_CUDA_PRODUCTS");
    TRY(cuda_open(0, &b->dev));
    setenv("SOLAR_CUDA_PRODUCTS", "measure", 1);
    TRY(cuda_open(0, &b->fastest));
    TRY(make_pool(b));
    fill(b);
done:
    return e;
}

int main(int argc, char **argv) {
    bench b = {.s = {4096, 4096, 14336, 32, 8, 128, 32000, 1024, 8192, 1 << 26}, .sample = 0.02};
    if (argc > 1 && !strcmp(argv[1], "tiny")) {
        b.s = (shapes){68, 64, 256, 2, 1, 128, 90, 16, 32, 1 << 10};
        b.sample = 0;
    }
    err *e = open_bench(&b);
    if (e && !b.dev) {
        printf("bench_gpu_ops: skipped: %s\n", err_text(e));
        err_free(e);
        return SKIPPED;
    }
    stop(&b, e);
    products(&b);
    attentions(&b);
    rows(&b);
    b.dev->ops->free(b.dev, b.pool);
    b.fastest->ops->close(b.fastest);
    b.dev->ops->close(b.dev);
    return 0;
}
