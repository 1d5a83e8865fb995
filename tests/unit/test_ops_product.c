// Matrix products and bias against fp64.
#include "ops_check.h"

enum { M, N, K, PAD, MODE }; // shape; PAD widens every leading dimension; MODE: bits of the options

static double operand(const buffer *x, bool transposed, int64_t i, int64_t j, int64_t ld) {
    return x->value[transposed ? j * ld + i : i * ld + j];
}

static void reference(const product *p, const buffer *a, const buffer *b, const buffer *c, double *want) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double s = p->accumulate ? c->value[i * p->ldc + j] : 0;
            for (int64_t k = 0; k < p->k; k++)
                s += operand(a, p->trans_a, i, k, p->lda) * operand(b, p->trans_b, k, j, p->ldb);
            want[i * p->n + j] = s;
        }
}

// Columns of a row-major buffer that belong to the matrix, packed; the others must be as they were.
static void packed(run *r, const buffer *c, const product *p, const double *want, double tol) {
    buffer *got = poisoned(r, c->dt, p->m * p->n);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->ldc && i * p->ldc + j < c->n; j++) {
            double x = element_at(c, i * p->ldc + j);
            if (j < p->n)
                set_element(got, i * p->n + j, x);
            else
                assert_true(isnan(x));
        }
    expect(r, got, want, tol, "product");
}

static void product_case(run *r, const int64_t *s) {
    product p = {.dt = r->dt, .cdt = s[MODE] & 8 ? DT_F32 : r->dt, .m = s[M], .n = s[N], .k = s[K]};
    p.trans_a = s[MODE] & 1, p.trans_b = s[MODE] & 2, p.accumulate = s[MODE] & 4;
    int64_t a_rows = p.trans_a ? p.k : p.m, b_rows = p.trans_b ? p.n : p.k;
    p.lda = (p.trans_a ? p.m : p.k) + s[PAD];
    p.ldb = (p.trans_b ? p.k : p.n) + s[PAD];
    p.ldc = p.n + s[PAD];
    buffer *a = filled(r, p.dt, a_rows * p.lda, 1), *b = filled(r, p.dt, b_rows * p.ldb, 1);
    buffer *c = poisoned(r, p.cdt, p.m * p.ldc);
    for (int64_t i = 0; p.accumulate && i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) set_element(c, i * p.ldc + j, uniform(r));
    p.a = a->data, p.b = b->data, p.c = c->data;
    double *want = zeros(p.m * p.n);
    if (compared(r)) reference(&p, a, b, c, want);
    r->dev->ops->product(r->dev, &p);
    // fp32 sums of k terms of either sign: the error grows about as sqrt(k), within 1e-6 up to k = 2049
    packed(r, c, &p, want, tolerance(p.cdt, 1e-6));
    free(want);
}

static const int64_t product_shapes[][4] = {
    {1, 1, 1, 0},      {3, 1, 7, 2},     {1, 17, 33, 1},  {2, 65, 300, 0},  {3, 33, 1000, 5},
    {4, 16, 1, 0},     {7, 33, 65, 3},   {17, 7, 3, 0},   {33, 17, 65, 1},  {65, 65, 65, 0},
    {64, 64, 64, 0},   {129, 5, 257, 2}, {5, 600, 20, 0}, {300, 40, 30, 0}, {31, 30, 513, 0},
    {16, 48, 2049, 1}, {1100, 19, 5, 0},
};

static void test_product(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof product_shapes / sizeof *product_shapes; i++)
        for (int64_t mode = 0; mode < 16; mode++) {
            int64_t s[5] = {0, 0, 0, 0, mode};
            memcpy(s, product_shapes[i], sizeof product_shapes[i]);
            run_case(product_case, s);
        }
}

// Row i of a product has the same bits whatever the number of rows, from the first that is not a dot
// product on: what makes a sequence's result independent of its neighbours in the batch.
static void rows_case(run *r, const int64_t *s) {
    int64_t m = s[M], n = s[N], k = s[K];
    buffer *a = filled(r, r->dt, m * k, 1), *b = filled(r, r->dt, n * k, 1);
    buffer *all = poisoned(r, DT_F32, m * n), *some = poisoned(r, DT_F32, m * n);
    product p = {.dt = r->dt, .cdt = DT_F32, .trans_b = true, .m = m, .n = n, .k = k, .a = a->data};
    p.b = b->data, p.c = all->data, p.lda = k, p.ldb = k, p.ldc = n;
    r->dev->ops->product(r->dev, &p);
    p.c = some->data;
    for (p.m = 4; p.m <= m; p.m += 5) {
        r->dev->ops->product(r->dev, &p);
        assert_memory_equal(all->data, some->data, (size_t)(p.m * n) * 4);
    }
}

static void test_rows_stand_alone(void **state) {
    (void)state;
    run_case(rows_case, (int64_t[]){70, 45, 300});
}

static void test_empty_product(void **state) {
    (void)state;
    device *d;
    assert_null(cpu_open(1, &d));
    float c[6] = {1, 2, 3, 4, 5, 6};
    product p = {.dt = DT_F32, .cdt = DT_F32, .m = 2, .n = 2, .k = 0, .c = c, .ldc = 3, .accumulate = true};
    d->ops->product(d, &p);
    assert_true(c[0] == 1 && c[4] == 5);
    p.accumulate = false;
    d->ops->product(d, &p);
    assert_true(c[0] == 0 && c[1] == 0 && c[2] == 3 && c[3] == 0 && c[4] == 0 && c[5] == 6);
    p.m = 0, p.k = 2;
    d->ops->product(d, &p);
    p.m = 2, p.n = 0;
    d->ops->product(d, &p);
    assert_null(d->ops->sync(d));
    d->ops->close(d);
}

// NaN and infinity in either operand reach C.
static void nan_case(run *r, const int64_t *s) {
    int64_t n = s[0];
    buffer *a = filled(r, r->dt, n * n, 1), *b = filled(r, r->dt, n * n, 1), *c = poisoned(r, DT_F32, n * n);
    set_element(s[1] ? b : a, 5 * n + 3, s[2] ? INFINITY : NAN);
    product p = {
        .dt = r->dt, .cdt = DT_F32, .m = n, .n = n, .k = n, .a = a->data, .b = b->data, .c = c->data};
    p.lda = p.ldb = p.ldc = n;
    r->dev->ops->product(r->dev, &p);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            bool hit = s[1] ? j == 3 : i == 5;
            assert_true(isfinite(element_at(c, i * n + j)) == !hit);
        }
}

static void test_product_nan(void **state) {
    (void)state;
    for (int64_t mode = 0; mode < 4; mode++) run_case(nan_case, (int64_t[]){37, mode & 1, mode >> 1});
}

// Small whole numbers: no sum is ever rounded, so that every path must give the very same value.
static void whole_case(run *r, const int64_t *s) {
    product p = {.dt = r->dt, .cdt = DT_F32, .trans_b = true, .m = s[M], .n = s[N], .k = s[K]};
    p.lda = p.ldb = p.k, p.ldc = p.n;
    buffer *a = poisoned(r, r->dt, p.m * p.k), *b = poisoned(r, r->dt, p.n * p.k);
    buffer *c = poisoned(r, DT_F32, p.m * p.n);
    for (int64_t i = 0; i < a->n; i++) set_element(a, i, floor(16 * uniform(r)));
    for (int64_t i = 0; i < b->n; i++) set_element(b, i, floor(16 * uniform(r)));
    p.a = a->data, p.b = b->data, p.c = c->data;
    double *want = zeros(p.m * p.n);
    reference(&p, a, b, c, want);
    r->dev->ops->product(r->dev, &p);
    for (int64_t i = 0; i < c->n; i++) assert_true(element_at(c, i) == want[i]);
    free(want);
}

static void test_whole_numbers(void **state) {
    (void)state;
    run_case(whole_case, (int64_t[]){37, 50, 771});
    run_case(whole_case, (int64_t[]){9, 33, 1030});
}

// Subnormal numbers: dot instructions take them for zero, other paths do not. Either way nothing of their
// size disturbs a sum of others, and what they give by themselves is no larger than it should be.
static void subnormal_case(run *r, const int64_t *s) {
    int64_t n = s[0];
    buffer *a = filled(r, r->dt, n * n, 1e-39), *b = filled(r, r->dt, n * n, 1),
           *c = poisoned(r, DT_F32, n * n);
    for (int64_t i = 0; i < n; i++) set_element(a, i, i == 3); // row 0 picks row 3 of B
    product p = {.dt = r->dt, .cdt = DT_F32, .m = n, .n = n, .k = n};
    p.a = a->data, p.b = b->data, p.c = c->data, p.lda = p.ldb = p.ldc = n;
    r->dev->ops->product(r->dev, &p);
    for (int64_t j = 0; j < n; j++) {
        assert_true(element_at(c, j) == b->value[3 * n + j]);
        for (int64_t i = 1; i < n; i++) assert_true(fabs(element_at(c, i * n + j)) <= 1e-39 * (double)n);
    }
}

static void test_subnormal(void **state) {
    (void)state;
    run_case(subnormal_case, (int64_t[]){37});
    run_case(subnormal_case, (int64_t[]){64});
}

// ---- bias

static void bias_case(run *r, const int64_t *s) {
    int64_t T = s[0], n = s[1], ld = n + s[2];
    buffer *y = filled(r, r->dt, T * ld, 1), *b = filled(r, r->dt, n, 1);
    dtype gdt = s[3] ? r->dt : DT_F32;
    buffer *db = filled(r, gdt, n, 1);
    double *want = zeros(T * ld), *grad = zeros(n);
    for (int64_t j = 0; j < n; j++) grad[j] = db->value[j];
    r->dev->ops->bias_grad(r->dev, r->dt, gdt, db->data, y->data, ld, T, n);
    for (int64_t i = 0; i < T * ld; i++) {
        bool inside = i % ld < n;
        want[i] = y->value[i] + (inside ? b->value[i % ld] : 0);
        if (inside) grad[i % ld] += y->value[i];
    }
    r->dev->ops->bias(r->dev, r->dt, y->data, ld, b->data, T, n);
    expect(r, y, want, tolerance(r->dt, 1e-7), "bias");
    expect(r, db, grad, tolerance(gdt, 1e-6), "bias_grad");
    free(want);
    free(grad);
}

static void test_bias(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 0}, {3, 7, 2}, {17, 65, 0}, {200, 33, 1}, {33, 700, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t half = 0; half < 2; half++)
            run_case(bias_case, (int64_t[]){shapes[i][0], shapes[i][1], shapes[i][2], half});
}

// ---- the comparison itself: it must fail on NaN, on a wrong value, on an overwritten neighbour

static void test_comparison_can_fail(void **state) {
    (void)state;
    double want[3] = {1, -2, 3}, got[3] = {1, -2, 3};
    assert_true(difference(got, want, 3) <= 0);
    got[1] = NAN;
    assert_false(difference(got, want, 3) <= 1e30);
    got[1] = -2 * (1 + 1e-5);
    assert_false(difference(got, want, 3) <= 1e-6);
    got[1] = INFINITY;
    assert_false(difference(got, want, 3) <= 1e-6);
    got[1] = -2, want[0] = NAN;
    assert_false(difference(got, want, 3) <= 1e30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comparison_can_fail), cmocka_unit_test(test_product),
        cmocka_unit_test(test_rows_stand_alone),    cmocka_unit_test(test_empty_product),
        cmocka_unit_test(test_product_nan),         cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_subnormal),           cmocka_unit_test(test_bias),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
