// Every op of the GPU but attention against the CPU device (cuda_check.h): odd sizes and sizes that move in
// packs.
#include "cuda_check.h"

// ---- memory and errors

static void test_memory(void **state) {
    BENCH
    device *d = b->dev[GPU];
    char *p = NULL, back[5];
    assert_false(d->ops->host_memory);
    assert_null(d->ops->alloc(d, 100, (void **)&p));
    assert_int_equal((uintptr_t)p % 64, 0);
    char word[5] = "abcd";
    d->ops->upload(d, p, word, 5);
    memset(word, 0, sizeof word); // the upload must be over with it
    d->ops->copy(d, p + 10, p, 5);
    d->ops->zero(d, p, 5);
    d->ops->download(d, back, p + 10, 5);
    assert_string_equal(back, "abcd");
    d->ops->download(d, back, p, 5);
    assert_int_equal(back[0] | back[4], 0);
    d->ops->free(d, p);
    assert_null(d->ops->alloc(d, 0, (void **)&p));
    assert_non_null(p);
    d->ops->free(d, p);
    void *huge = &huge;
    err *e = d->ops->alloc(d, (size_t)1 << 50, &huge);
    assert_int_equal(err_get_code(e), ERR_SYSTEM);
    assert_null(huge);
    err_free(e);
    assert_null(d->ops->sync(d));
}

static void test_open(void **state) {
    BENCH
    device *d = NULL;
    err *e = cuda_open(-1, &d);
    assert_int_equal(err_get_code(e), ERR_USAGE);
    err_free(e);
    assert_null(d);
    assert_null(cuda_open(1000, &d)); // modulo the number of GPUs
    assert_null(d->ops->sync(d));
    d->ops->close(d);
}

// What a kernel cannot do is an error of the next sync, once.
static void test_errors_are_kept(void **state) {
    BENCH
    device *d = b->dev[GPU];
    attention a = {.batch = 1, .rows = 4, .q_rows = 4, .heads = 1, .kv_heads = 1, .head_dim = 300};
    d->ops->attention(d, &a);
    d->ops->attention_grad(d, &a);
    err *e = d->ops->sync(d);
    assert_int_equal(err_get_code(e), ERR_SYSTEM);
    assert_non_null(strstr(err_text(e), "head_dim 300"));
    err_free(e);
    assert_null(d->ops->sync(d));
}

// ---- linear layers

enum { M, N, K, PAD, MODE };

static void product_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    product p = {.dt = dt, .cdt = s[MODE] & 8 ? DT_F32 : dt, .m = s[M], .n = s[N], .k = s[K]};
    p.trans_a = s[MODE] & 1, p.trans_b = s[MODE] & 2, p.accumulate = s[MODE] & 4;
    int64_t a_rows = p.trans_a ? p.k : p.m, b_rows = p.trans_b ? p.n : p.k;
    p.lda = (p.trans_a ? p.m : p.k) + s[PAD];
    p.ldb = (p.trans_b ? p.k : p.n) + s[PAD];
    p.ldc = p.n + s[PAD];
    twin *x = random_twin(b, dt, a_rows * p.lda, 1), *y = random_twin(b, dt, b_rows * p.ldb, 1);
    twin *c = p.accumulate ? random_twin(b, p.cdt, p.m * p.ldc, 1) : nan_twin(b, p.cdt, p.m * p.ldc);
    for (int side = 0; side < SIDES; side++) {
        p.a = AT(x), p.b = AT(y), p.c = AT(c);
        b->dev[side]->ops->product(b->dev[side], &p);
    }
    same(b, c, near(p.cdt, 3e-6), "product");
}

static void test_product(void **state) {
    BENCH
    static const int64_t shapes[][4] = {{1, 1, 1, 0},    {3, 1, 7, 2},     {1, 17, 33, 1},
                                        {7, 33, 65, 3},  {64, 64, 64, 0},  {65, 48, 40, 8},
                                        {129, 5, 70, 2}, {16, 48, 700, 1}, {5, 6, 0, 1}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int64_t mode = 0; mode < 16; mode++) {
            int64_t s[5] = {0, 0, 0, 0, mode};
            memcpy(s, shapes[i], sizeof shapes[i]);
            run_both(b, product_case, s);
        }
}

// The fastest of several algorithms, found by trying them: the same product, and what C held is not lost.
static void test_measured_products(void **state) {
    BENCH
    device *usual = b->dev[GPU];
    assert_int_equal(setenv("SOLAR_CUDA_PRODUCTS", "measure", 1), 0);
    err *e = cuda_open(0, &b->dev[GPU]);
    if (e) fail_msg("%s", err_text(e));
    b->dev[AGAIN] = b->dev[GPU];
    for (int64_t mode = 0; mode < 16; mode++) run_both(b, product_case, (int64_t[]){17, 33, 24, 8, mode});
    b->dev[GPU]->ops->close(b->dev[GPU]);
    b->dev[AGAIN] = b->dev[GPU] = usual;
    assert_int_equal(setenv("SOLAR_CUDA_PRODUCTS", "guess", 1), 0);
    device *none = NULL;
    e = cuda_open(0, &none);
    assert_int_equal(err_get_code(e), ERR_USAGE);
    err_free(e);
    assert_null(none);
    unsetenv("SOLAR_CUDA_PRODUCTS");
}

// More shapes than are kept: those forgotten are chosen for again.
static void test_many_products(void **state) {
    BENCH
    for (int turn = 0; turn < 2; turn++)
        for (int64_t m = 1; m <= 300; m++) run_one(b, product_case, (int64_t[]){m, 1, 1, 0, 0}, DT_F32, true);
}

static void bias_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], n = s[1], ld = n + s[2];
    twin *y = random_twin(b, dt, T * ld, 1), *bias = random_twin(b, dt, n, 1);
    dtype gdt = s[3] ? dt : DT_F32;
    twin *db = random_twin(b, gdt, n, 1);
    ON_EACH(bias_grad(d, dt, gdt, AT(db), AT(y), ld, T, n))
    ON_EACH(bias(d, dt, AT(y), ld, AT(bias), T, n))
    same(b, y, near(dt, 1e-7), "bias");
    same(b, db, near(gdt, 1e-6), "bias_grad");
}

static void test_bias(void **state) {
    BENCH
    static const int64_t shapes[][3] = {{0, 5, 0},   {1, 1, 0},    {3, 7, 2},  {17, 64, 0},
                                        {20, 72, 8}, {200, 33, 1}, {5, 700, 3}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int64_t half = 0; half < 2; half++)
            run_both(b, bias_case, (int64_t[]){shapes[i][0], shapes[i][1], shapes[i][2], half});
}

// More rows than a grid has in its second direction.
static void test_many_rows(void **state) {
    BENCH
    run_one(b, bias_case, (int64_t[]){65537, 1, 0, 0}, DT_BF16, true);
}

// ---- embedding

static void embed_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], h = s[1], first = s[2], rows = s[3];
    twin *table = random_twin(b, dt, rows * h, 1), *y = nan_twin(b, dt, T * h);
    dtype gdt = s[4] ? dt : DT_F32;
    twin *grad = random_twin(b, gdt, rows * h, 1), *dy = random_twin(b, dt, T * h, 1);
    twin *chain = nan_twin(b, DT_F32, T);
    int32_t *value = malloc((size_t)T * sizeof *value);
    assert_non_null(value);
    for (int64_t t = 0; t < T; t++) // some before, some after the rows of this part; many alike
        value[t] = (int32_t)(first - 2 + (int64_t)((uniform(&b->cpu) + 1) / 2 * (double)(rows + 4)));
    twin *token = int_twin(b, value, T);
    free(value);
    ON_EACH(embed(d, dt, AT(y), AT(table), AT(token), T, h, first, rows))
    ON_EACH(embed_grad(d, dt, gdt, AT(grad), AT(dy), AT(token), AT(chain), T, h, first, rows))
    same(b, y, 0, "embed");
    same(b, grad, 0, "embed_grad"); // sums in the same order
}

static void test_embed(void **state) {
    BENCH
    static const int64_t shapes[][4] = {{1, 1, 0, 1},       {7, 3, 5, 4},    {33, 64, 0, 17},
                                        {90, 129, 100, 70}, {40, 300, 3, 5}, {300, 12, 5, 400}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int64_t half = 0; half < 2; half++) {
            int64_t s[5] = {[4] = half};
            memcpy(s, shapes[i], sizeof shapes[i]);
            run_both(b, embed_case, s);
        }
}

// ---- RMSNorm

enum { DELTA = 1, IN_PLACE = 2, RESIDUAL = 4, HALF = 8 }; // HALF: dw in dt

static void norm_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], h = s[1], mode = s[2], n = T * h;
    twin *x = random_twin(b, dt, n, 3), *delta = random_twin(b, dt, n, 1), *w = random_twin(b, dt, h, 1);
    twin *y = nan_twin(b, dt, n), *rstd = nan_twin(b, DT_F32, T);
    twin *sum = mode & IN_PLACE ? x : nan_twin(b, dt, n);
    ON_EACH(
        rmsnorm(d, dt, AT(y), AT(rstd), AT(sum), AT(x), mode & DELTA ? AT(delta) : NULL, AT(w), T, h, 1e-5f))
    same(b, y, near(dt, 1e-6), "rmsnorm");
    same(b, rstd, 1e-6, "rstd");
    same(b, sum, 0, "residual sum");
}

static void norm_grad_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], h = s[1], mode = s[2], n = T * h;
    twin *x = random_twin(b, dt, n, 3), *dy = random_twin(b, dt, n, 1), *w = random_twin(b, dt, h, 1);
    twin *residual = random_twin(b, dt, n, 1), *dx = mode & IN_PLACE ? residual : nan_twin(b, dt, n);
    twin *y = nan_twin(b, dt, n), *rstd = nan_twin(b, DT_F32, T), *dw;
    twin *partial = nan_twin(b, DT_F32, ops_norm_partial(T, h));
    dtype gdt = mode & HALF ? dt : DT_F32;
    bool with = mode & (RESIDUAL | IN_PLACE);
    dw = random_twin(b, gdt, h, 1);
    ON_EACH(rmsnorm(d, dt, AT(y), AT(rstd), NULL, AT(x), NULL, AT(w), T, h, 1e-5f))
    ON_EACH(rmsnorm_grad(d, dt, gdt, AT(dx), AT(dw), with ? AT(residual) : NULL, AT(dy), AT(x), AT(w),
                         AT(rstd), AT(partial), T, h))
    same(b, dx, near(dt, 2e-6), "rmsnorm dx");
    same(b, dw, near(gdt, dt == DT_F32 ? 2e-6 : 1e-3), "rmsnorm dw"); // bf16: ties of the inner rounding
}

static const int64_t norm_shapes[][2] = {{1, 2}, {3, 7}, {17, 64}, {65, 304}, {2, 513}, {5, 2304}, {2100, 8}};

static void test_norm(void **state) {
    BENCH
    for (size_t i = 0; i < COUNT(norm_shapes); i++)
        for (int64_t mode = 0; mode < 4; mode++)
            run_both(b, norm_case, (int64_t[]){norm_shapes[i][0], norm_shapes[i][1], mode});
}

static void test_norm_grad(void **state) {
    BENCH
    for (size_t i = 0; i < COUNT(norm_shapes); i++)
        for (int64_t mode = 0; mode <= RESIDUAL + HALF; mode += 2)
            if ((mode & ~HALF) <= RESIDUAL)
                run_both(b, norm_grad_case, (int64_t[]){norm_shapes[i][0], norm_shapes[i][1], mode});
}

// ---- elementwise

static void rope_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], heads = s[1], dim = s[2], ld = heads * dim + s[3], positions = 13, half = dim / 2;
    twin *x = random_twin(b, dt, T * ld, 1);
    twin *cosine = random_twin(b, DT_F32, positions * half, 1),
         *sine = random_twin(b, DT_F32, positions * half, 1);
    int32_t at[100];
    for (int64_t t = 0; t < T; t++) at[t] = (int32_t)((t * 7 + 3) % positions);
    twin *pos = int_twin(b, at, T);
    ON_EACH(rope(d, dt, AT(x), ld, AT(pos), AT(cosine), AT(sine), T, heads, dim, false))
    same(b, x, near(dt, 3e-7), "rope");
    ON_EACH(rope(d, dt, AT(x), ld, AT(pos), AT(cosine), AT(sine), T, heads, dim, true))
    same(b, x, near(dt, 6e-7), "rope, inverse");
}

static void test_rope(void **state) {
    BENCH
    static const int64_t shapes[][4] = {{1, 1, 2, 0},   {3, 2, 6, 1},    {17, 5, 7, 0},
                                        {20, 3, 32, 8}, {65, 3, 130, 7}, {5, 1, 512, 0}};
    for (size_t i = 0; i < COUNT(shapes); i++) run_both(b, rope_case, shapes[i]);
}

static void swiglu_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], f = s[1];
    twin *gu = random_twin(b, dt, T * 2 * f, 8), *y = nan_twin(b, dt, T * f),
         *dy = random_twin(b, dt, T * f, 1);
    twin *dgu = s[2] ? gu : nan_twin(b, dt, T * 2 * f);
    ON_EACH(swiglu(d, dt, AT(y), AT(gu), T, f))
    ON_EACH(swiglu_grad(d, dt, AT(dgu), AT(dy), AT(gu), T, f))
    same(b, y, near(dt, 1e-6), "swiglu");
    same(b, dgu, near(dt, 1e-6), "swiglu_grad");
}

static void test_swiglu(void **state) {
    BENCH
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 64}, {65, 300}, {2, 1025}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int64_t in_place = 0; in_place < 2; in_place++)
            run_both(b, swiglu_case, (int64_t[]){shapes[i][0], shapes[i][1], in_place});
}

static void extreme_case(bench *b, const int64_t *s) {
    (void)s;
    static const double gate[5] = {200, -200, 1e30, -1e30, NAN};
    buffer *gu = poisoned(&b->cpu, b->cpu.dt, 10);
    for (int64_t j = 0; j < 5; j++) set_element(gu, j, gate[j]), set_element(gu, 5 + j, 1);
    twin *x = both(b, gu), *y = nan_twin(b, b->cpu.dt, 5);
    ON_EACH(swiglu(d, b->cpu.dt, AT(y), AT(x), 1, 5))
    same(b, y, near(b->cpu.dt, 1e-6), "swiglu at its limits");
}

static void test_swiglu_extremes(void **state) {
    BENCH
    run_both(b, extreme_case, NULL);
}

static void add_and_cast_case(bench *b, const int64_t *s) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0, 1e-40, 3.4e38, 1.00390625, 1.01171875};
    dtype dt = b->cpu.dt;
    twin *y = random_twin(b, dt, s[0], 1), *x = random_twin(b, dt, s[0], 1);
    ON_EACH(add(d, dt, AT(y), AT(x), s[0]))
    same(b, y, 0, "add");
    for (int to = DT_F32; to <= DT_BF16; to++) {
        buffer *from = filled(&b->cpu, dt, s[0], 1e3);
        for (int64_t i = 0; i < (int64_t)COUNT(odd) && i < s[0]; i++) set_element(from, s[0] - 1 - i, odd[i]);
        twin *in = both(b, from), *out = nan_twin(b, (dtype)to, s[0]);
        ON_EACH(cast(d, (dtype)to, AT(out), dt, AT(in), s[0]))
        char *data[2] = {fetch(b, out, CPU, "cast"), fetch(b, out, GPU, "cast")};
        buffer cpu = {.dt = (dtype)to, .data = data[0]}, gpu = {.dt = (dtype)to, .data = data[1]};
        for (int64_t i = 0; i < s[0]; i++) {
            double want = element_at(&cpu, i), got = element_at(&gpu, i);
            assert_true(isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want));
        }
        free(data[0]);
        free(data[1]);
    }
}

// Rows as three ranks sent them, the second of them at another place.
static void sum_rows_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t n = s[0], ld = n + s[1];
    twin *rows = random_twin(b, dt, 3 * ld, 1), *own = random_twin(b, dt, n, 1);
    twin *wide = nan_twin(b, DT_F32, n);
    for (int side = 0; side < SIDES; side++) {
        row_sum sum = {.dt = dt,
                       .out_dt = DT_F32,
                       .count = 3,
                       .ld = ld,
                       .n = n,
                       .rows = AT(rows),
                       .own = AT(own),
                       .own_row = 1,
                       .out = AT(wide)};
        b->dev[side]->ops->sum_rows(b->dev[side], &sum);
        sum.out_dt = dt, sum.out = AT(own);
        b->dev[side]->ops->sum_rows(b->dev[side], &sum);
    }
    same(b, wide, 0, "sum of rows");
    same(b, own, 0, "sum of rows in place");
}

static void test_sum_rows(void **state) {
    BENCH
    static const int64_t sizes[][2] = {{1, 0}, {7, 1}, {64, 0}, {1000, 0}, {1001, 3}, {10008, 8}};
    for (size_t i = 0; i < COUNT(sizes); i++) run_both(b, sum_rows_case, sizes[i]);
}

// A copy on another queue that waits for the work, and work that waits for the copy.
static void test_queues(void **state) {
    BENCH
    device *d = b->dev[GPU];
    enum { N = 1 << 16 };
    float *x = NULL, *host = aligned_alloc(64, N * sizeof *host);
    event *ready = NULL, *copied = NULL;
    assert_non_null(host);
    assert_null(d->ops->alloc(d, N * sizeof *x, (void **)&x));
    assert_null(d->ops->pin(d, host, N * sizeof *host));
    assert_null(d->ops->event_open(d, &ready));
    assert_null(d->ops->event_open(d, &copied));
    assert_true(d->ops->reached(d, copied)); // nothing was marked
    for (int i = 0; i < N; i++) host[i] = 1;
    d->ops->store(d, x, host, N * sizeof *x);
    for (int i = 0; i < 5; i++) d->ops->add(d, DT_F32, x, x, N);
    d->ops->mark(d, ready);
    d->ops->use(d, QUEUE_FETCH);
    d->ops->follow(d, ready);
    d->ops->fetch(d, host, x, N * sizeof *x);
    d->ops->mark(d, copied);
    d->ops->use(d, QUEUE_COMPUTE);
    d->ops->follow(d, copied);
    d->ops->zero(d, x, N * sizeof *x);
    while (!d->ops->reached(d, copied)) continue;
    for (int i = 0; i < N; i++) assert_float_equal(host[i], 32, 0);
    d->ops->download(d, host, x, N * sizeof *x);
    for (int i = 0; i < N; i++) assert_float_equal(host[i], 0, 0);
    assert_null(d->ops->sync(d));
    d->ops->event_close(d, ready);
    d->ops->event_close(d, copied);
    d->ops->unpin(d, host);
    d->ops->free(d, x);
    free(host);
}

static err *lose_patience(void *count, double waited) {
    assert_true(waited >= 0);
    return ++*(int *)count < 3 ? NULL : err_new(ERR_PEER, "nobody comes");
}

// Who watches is asked while the host waits, and ends the wait.
static void test_watch(void **state) {
    BENCH
    device *d = NULL;
    int asked = 0;
    void *x = NULL;
    enum { BYTES = 1 << 16, OPS = 4000 };
    assert_null(cuda_open(0, &d));
    assert_null(d->ops->alloc(d, BYTES, &x));
    d->ops->watch(d, lose_patience, &asked);
    for (int i = 0; i < OPS; i++) d->ops->zero(d, x, BYTES);
    err *e = d->ops->sync(d);
    assert_int_equal(err_get_code(e), ERR_PEER);
    assert_int_equal(asked, 3);
    err_free(e);
    d->ops->free(d, x);
    d->ops->close(d);
}

static void test_add_and_cast(void **state) {
    BENCH
    static const int64_t sizes[] = {1, 3, 7, 17, 64, 1000, 10001};
    for (size_t i = 0; i < COUNT(sizes); i++) run_both(b, add_and_cast_case, sizes + i);
}

// ---- cross-entropy

static void fill_targets(bench *b, int32_t *target, int64_t T, int64_t v) {
    for (int64_t t = 0; t < T; t++)
        target[t] = t % 3 == 1 ? -100 : (int32_t)((uniform(&b->cpu) + 1) / 2 * (double)v);
}

// Two parts of the vocabulary, of v/3 and the other columns.
static void xent_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt;
    int64_t T = s[0], v = s[1], first[3] = {0, v / 3, v}, ld = v + s[2];
    int32_t value[100];
    fill_targets(b, value, T, v);
    twin *target = int_twin(b, value, T), *stats = nan_twin(b, DT_F32, 2 * T * 3);
    twin *logits = random_twin(b, DT_F32, T * ld, 10), *loss = nan_twin(b, DT_F32, T),
         *lse = nan_twin(b, DT_F32, T);
    twin *grad = nan_twin(b, dt, T * ld);
    for (int p = 0; p < 2; p++)
        ON_EACH(xent_stats(d, (float *)AT(stats) + p * T * 3, (float *)AT(logits) + first[p], ld, AT(target),
                           T, first[p + 1] - first[p], first[p]))
    ON_EACH(xent_merge(d, AT(loss), AT(lse), AT(stats), 2, AT(target), T))
    same(b, loss, 1e-6, "loss");
    same(b, lse, 1e-6, "lse");
    ON_EACH(xent_grad(d, dt, AT(grad), AT(logits), ld, AT(lse), AT(target), 0.37f, T, v, 0))
    ON_EACH(xent_grad(d, DT_F32, AT(logits), AT(logits), ld, AT(lse), AT(target), 0.37f, T, v, 0))
    same(b, grad, near(dt, 1e-6), "xent_grad");
    same(b, logits, 1e-6, "xent_grad in place");
}

static void test_xent(void **state) {
    BENCH
    static const int64_t shapes[][3] = {{1, 1, 0},    {3, 7, 3},    {17, 48, 0},
                                        {5, 1000, 4}, {65, 300, 1}, {2, 4097, 0}};
    for (size_t i = 0; i < COUNT(shapes); i++) run_both(b, xent_case, shapes[i]);
}

// A NaN or infinite logit makes its row NaN and no other.
static void bad_logit_case(bench *b, const int64_t *s) {
    enum { T = 4, V = 40 };
    dtype dt = b->cpu.dt;
    static const int32_t value[T] = {3, 3, -1, 39};
    buffer *host = filled(&b->cpu, DT_F32, T * V, 1e4);
    for (int64_t t = 1; t <= 2; t++) set_element(host, t * V + s[0], s[1] ? INFINITY : NAN);
    twin *logits = both(b, host), *target = int_twin(b, value, T), *stats = nan_twin(b, DT_F32, T * 3);
    twin *loss = nan_twin(b, DT_F32, T), *lse = nan_twin(b, DT_F32, T), *grad = nan_twin(b, dt, T * V);
    ON_EACH(xent_stats(d, AT(stats), AT(logits), V, AT(target), T, V, 0))
    ON_EACH(xent_merge(d, AT(loss), AT(lse), AT(stats), 1, AT(target), T))
    ON_EACH(xent_grad(d, dt, AT(grad), AT(logits), V, AT(lse), AT(target), 1, T, V, 0))
    same(b, loss, 1e-6, "loss with a bad logit");
    same(b, grad, near(dt, 1e-6), "xent_grad with a bad logit");
}

static void test_bad_logits(void **state) {
    BENCH
    static const int64_t places[] = {0, 3, 39};
    for (size_t i = 0; i < COUNT(places); i++)
        for (int64_t infinite = 0; infinite < 2; infinite++)
            run_both(b, bad_logit_case, (int64_t[]){places[i], infinite});
}

// ---- sums and AdamW

static double fetch_double(bench *b, const twin *x, int side) {
    char *data = fetch(b, x, side, "sum");
    double value;
    memcpy(&value, data, sizeof value);
    free(data);
    return value;
}

static void same_double(bench *b, const twin *x, double scale, const char *what) {
    double cpu = fetch_double(b, x, CPU), gpu = fetch_double(b, x, GPU), again = fetch_double(b, x, AGAIN);
    assert_memory_equal(&gpu, &again, sizeof gpu);
    if (isfinite(cpu))
        within(fabs(cpu - gpu), 1e-13 * (1 + scale), what);
    else
        assert_true(isnan(cpu) ? isnan(gpu) : cpu == gpu);
}

// s[1]: 0 finite, 1 with an infinity, 2 with a NaN
static void sum_case(bench *b, const int64_t *s) {
    buffer *host = filled(&b->cpu, DT_F32, s[0], 3);
    if (s[1]) set_element(host, s[0] / 2, s[1] == 1 ? -INFINITY : NAN);
    twin *x = both(b, host), *halves = random_twin(b, DT_BF16, s[0], 3);
    b->aligned = true; // the results are of 8 bytes
    twin *sum = nan_twin(b, DT_F32, 2), *squares = nan_twin(b, DT_F32, 2),
         *of_halves = nan_twin(b, DT_F32, 2);
    ON_EACH(sum(d, AT(sum), AT(x), s[0]))
    ON_EACH(sumsq(d, AT(squares), DT_F32, AT(x), s[0]))
    ON_EACH(sumsq(d, AT(of_halves), DT_BF16, AT(halves), s[0]))
    same_double(b, sum, (double)s[0], "sum");
    same_double(b, squares, 9 * (double)s[0], "sumsq");
    same_double(b, of_halves, 9 * (double)s[0], "sumsq of bf16");
}

static void test_sums(void **state) {
    BENCH
    static const int64_t sizes[] = {0, 1, 3, 7, 255, 4099, 40005};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int64_t bad = 0; bad < (sizes[i] ? 3 : 1); bad++)
            for (int in_line = 0; in_line < 2; in_line++)
                run_one(b, sum_case, (int64_t[]){sizes[i], bad}, DT_F32, in_line);
    run_one(b, sum_case, (int64_t[]){1100003, 0}, DT_F32, true); // more than one turn for every block
}

// The halves of bf16 weights as the numbers they are together.
static void same_weights(bench *b, const twin *near, const twin *rest) {
    int64_t n = near->host->n;
    char *high[SIDES], *low[SIDES];
    double *value[2] = {zeros(n), zeros(n)};
    for (int side = 0; side < SIDES; side++) {
        high[side] = fetch(b, near, side, "adamw weights");
        low[side] = fetch(b, rest, side, "adamw weights");
    }
    for (int side = 0; side < 2; side++)
        for (int64_t i = 0; i < n; i++) {
            float f = float_join(((bf16 *)high[side])[i], ((int16_t *)low[side])[i]);
            assert_int_equal(float_split(f).near, ((bf16 *)high[side])[i]);
            value[side][i] = f;
        }
    within(difference(value[GPU], value[CPU], n), 1e-6, "adamw weights in halves");
    assert_memory_equal(high[GPU], high[AGAIN], n * 2);
    assert_memory_equal(low[GPU], low[AGAIN], n * 2);
    for (int side = 0; side < SIDES; side++) free(high[side]), free(low[side]);
    free(value[0]);
    free(value[1]);
}

static twin *positive_twin(bench *b, int64_t n, double size) {
    buffer *x = filled(&b->cpu, DT_F32, n, size);
    for (int64_t i = 0; i < n; i++) set_element(x, i, fabs(x->value[i]));
    return both(b, x);
}

static twin *rest_twin(bench *b, int64_t n) {
    buffer *x = poisoned(&b->cpu, DT_BF16, n);
    for (int64_t i = 0; i < n; i++) ((int16_t *)x->data)[i] = (int16_t)(32767 * uniform(&b->cpu));
    return both(b, x);
}

enum { COUNT_, GRAD16, FORM, LEAD, COLS };

// Moments as they are kept: of the same size on both sides.
static twin *kept_twin(bench *b, moments_form f, int64_t n, double size, bool second) {
    if (f == MOMENTS_F32) return second ? positive_twin(b, n, size) : random_twin(b, DT_F32, n, size);
    buffer *x = poisoned(&b->cpu, DT_BF16, f == MOMENTS_BF16 ? n : (n + 1) / 2);
    memset(x->data, 0, buffer_bytes(x)); // zero in either form
    return both(b, x);
}

static double kept_value(moments_form f, const char *data, const float *largest, int64_t lead, bool second,
                         int64_t i) {
    if (f == MOMENTS_F32) return ((const float *)(const void *)data)[i];
    if (f == MOMENTS_BF16) return bf16_to_float(((const bf16 *)(const void *)data)[i]);
    return moment_decode(((const uint8_t *)data)[i], largest[i < lead ? 0 : 1 + (i - lead) / MOMENT_BLOCK],
                         second);
}

// The same numbers, but for a few that a last bit of the arithmetic rounded the other way.
static void same_moments(bench *b, const int64_t *s, const twin *x, const twin *largest, bool second) {
    moments_form f = (moments_form)s[FORM];
    char *data[SIDES], *most[SIDES];
    int64_t other = 0;
    for (int side = 0; side < SIDES; side++)
        data[side] = fetch(b, x, side, "moments"), most[side] = fetch(b, largest, side, "largest");
    for (int64_t i = 0; i < s[COUNT_]; i++) {
        double v[2];
        for (int side = 0; side < 2; side++)
            v[side] = kept_value(f, data[side], (float *)(void *)most[side], s[LEAD], second, i);
        assert_false(isnan(v[CPU]) || isnan(v[GPU]));
        other += !(fabs(v[CPU] - v[GPU]) <= 2e-6 * fabs(v[CPU]) + 1e-12);
    }
    if (other > 1 + s[COUNT_] / 100)
        fail_msg("%lld of %lld moments differ", (long long)other, (long long)s[COUNT_]);
    assert_memory_equal(data[GPU], data[AGAIN], buffer_bytes(x->host));
    assert_memory_equal(most[GPU], most[AGAIN], buffer_bytes(largest->host));
    for (int side = 0; side < SIDES; side++) free(data[side]), free(most[side]);
}

static void adamw_case(bench *b, const int64_t *s) {
    dtype dt = b->cpu.dt, gdt = s[GRAD16] ? dt : DT_F32;
    int64_t n = s[COUNT_], blocks = moments_blocks(n, s[LEAD]);
    moments_form f = (moments_form)s[FORM];
    twin *weight = random_twin(b, dt, n, 1), *rest = dt == DT_F32 ? NULL : rest_twin(b, n);
    twin *m = kept_twin(b, f, n, 0.1, false), *grad = random_twin(b, gdt, n, 2);
    twin *v = kept_twin(b, f, n, 0.1, true);
    twin *m_most = positive_twin(b, blocks, 0), *v_most = positive_twin(b, blocks, 0);
    adamw a = {.dt = dt,
               .n = n,
               .form = f,
               .lead = s[LEAD],
               .gdt = gdt,
               .grad_scale = 0.7f,
               .lr = 0.01f,
               .beta1 = 0.9f,
               .beta2 = 0.95f,
               .eps = 1e-8f};
    a.decay = 0.1f, a.key = 99, a.origin = 2, a.at = 3, a.cols = s[COLS], a.width = 2 * s[COLS] - 1;
    for (a.step = 1; a.step <= (f == MOMENTS_F32 ? 3 : 1); a.step++)
        for (int side = 0; side < SIDES; side++) {
            a.weight = AT(weight), a.m = AT(m), a.v = AT(v), a.grad = AT(grad);
            a.rest = rest ? AT(rest) : NULL, a.m_largest = AT(m_most), a.v_largest = AT(v_most);
            b->dev[side]->ops->adamw(b->dev[side], &a);
        }
    if (rest) same_weights(b, weight, rest);
    same(b, weight, near(dt, 1e-6), "adamw weight");
    same_moments(b, s, m, m_most, false);
    same_moments(b, s, v, v_most, true);
}

static void test_adamw(void **state) {
    BENCH
    static const int64_t sizes[] = {1, 3, 7, 17, 64, 130, 10001};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int64_t form = MOMENTS_F32; form <= MOMENTS_INT8; form++) {
            run_both(b, adamw_case, (int64_t[]){sizes[i], 0, form, MOMENT_BLOCK, 1});
            run_both(b, adamw_case,
                     (int64_t[]){sizes[i], 1, form, form == MOMENTS_INT8 ? 19 : MOMENT_BLOCK, 23});
        }
}

// ---- the group

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_errors_are_kept),
        cmocka_unit_test(test_measured_products),
        cmocka_unit_test(test_many_products),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_norm_grad),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_swiglu_extremes),
        cmocka_unit_test(test_xent),
        cmocka_unit_test(test_add_and_cast),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_bad_logits),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_sum_rows),
        cmocka_unit_test(test_queues),
        cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
