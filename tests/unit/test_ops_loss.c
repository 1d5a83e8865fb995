// Cross-entropy over a split vocabulary, sums, and the device itself.
#include <float.h>

#include "ops_check.h"

static double log_sum_exp(const double *x, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
    return most + log(sum);
}

// ---- cross-entropy

enum { ROWS, VOCAB, PARTS, EXTRA };

typedef struct part {
    int64_t first, n, ld;
    buffer *logits;
} part;

static part cut_part(run *r, const int64_t *s, const double *logits, int64_t p) {
    part x = {.first = s[VOCAB] * p / s[PARTS]};
    x.n = s[VOCAB] * (p + 1) / s[PARTS] - x.first;
    x.ld = x.n + s[EXTRA];
    x.logits = poisoned(r, DT_F32, s[ROWS] * x.ld);
    for (int64_t t = 0; t < s[ROWS]; t++)
        for (int64_t j = 0; j < x.n; j++)
            set_element(x.logits, t * x.ld + j, logits[t * s[VOCAB] + x.first + j]);
    return x;
}

// The gradient of one part, of `dt`, against scale*(softmax - onehot). Columns past the part stay NaN.
static void check_grad(run *r, const int64_t *s, const part *x, const double *logits, const double *lse,
                       const buffer *op_lse, const int32_t *target, bool in_place) {
    const float scale = 0.37f;
    buffer *grad = in_place ? x->logits : poisoned(r, r->dt, s[ROWS] * x->ld),
           *got = poisoned(r, grad->dt, s[ROWS] * x->n);
    double *want = zeros(s[ROWS] * x->n);
    r->dev->ops->xent_grad(r->dev, grad->dt, grad->data, x->logits->data, x->ld, op_lse->data, target, scale,
                           s[ROWS], x->n, x->first);
    for (int64_t t = 0; t < s[ROWS]; t++)
        for (int64_t j = 0; j < x->ld; j++) {
            double value = element_at(grad, t * x->ld + j);
            if (j >= x->n) {
                assert_true(isnan(value));
                continue;
            }
            set_element(got, t * x->n + j, value);
            double p = exp(logits[t * s[VOCAB] + x->first + j] - lse[t]);
            want[t * x->n + j] = target[t] < 0 ? 0 : scale * (p - (target[t] == x->first + j));
        }
    expect(r, got, want, tolerance(grad->dt, 1e-6), "xent_grad");
    free(want);
}

static void xent_case(run *r, const int64_t *s) {
    int64_t T = s[ROWS], v = s[VOCAB], parts = s[PARTS];
    double *logits = zeros(T * v), *want = zeros(T), *lse = zeros(T);
    int32_t *target = malloc((size_t)T * sizeof *target);
    part x[4];
    for (int64_t i = 0; i < T * v; i++) logits[i] = (float)(10 * uniform(r));
    for (int64_t t = 0; t < T; t++) {
        target[t] = t % 3 == 1 ? -100 : (int32_t)((uniform(r) + 1) / 2 * (double)v);
        lse[t] = log_sum_exp(logits + t * v, v);
        want[t] = target[t] < 0 ? 0 : lse[t] - logits[t * v + target[t]];
    }
    buffer *stats = poisoned(r, DT_F32, parts * T * 3), *loss = poisoned(r, DT_F32, T),
           *sum = poisoned(r, DT_F32, T);
    for (int64_t p = 0; p < parts; p++) {
        x[p] = cut_part(r, s, logits, p);
        r->dev->ops->xent_stats(r->dev, (float *)stats->data + p * T * 3, x[p].logits->data, x[p].ld, target,
                                T, x[p].n, x[p].first);
    }
    r->dev->ops->xent_merge(r->dev, loss->data, sum->data, stats->data, parts, target, T);
    expect(r, loss, want, 3e-7, "loss");
    expect(r, sum, lse, 3e-7, "lse");
    for (int64_t p = 0; p < parts; p++) check_grad(r, s, x + p, logits, lse, sum, target, false);
    for (int64_t p = 0; p < parts; p++) check_grad(r, s, x + p, logits, lse, sum, target, true);
    free(logits);
    free(want);
    free(lse);
    free(target);
}

static void test_xent(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 33}, {5, 1000}, {65, 300}, {2, 4097}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t parts = 1; parts <= 4; parts++)
            run_case(xent_case, (int64_t[]){shapes[i][0], shapes[i][1], parts, (int64_t)i % 2 * 3});
}

typedef struct loss_case {
    double x[9];
    int target;
} loss_case;

static double loss_of(void *context) {
    loss_case *c = context;
    return log_sum_exp(c->x, 9) - c->x[c->target];
}

static void test_xent_reference(void **state) {
    (void)state;
    run r = {.random = 11};
    loss_case c = {.target = 4};
    double grad[9];
    for (int i = 0; i < 9; i++) c.x[i] = uniform(&r) * 3;
    for (int i = 0; i < 9; i++) grad[i] = exp(c.x[i] - log_sum_exp(c.x, 9)) - (i == c.target);
    finite_difference(loss_of, &c, c.x, grad, 9, "xent_grad");
}

// A NaN or +inf logit anywhere makes the loss of its row NaN and of no other; logits of 1e4 do not overflow;
// a masked row has no loss even then.
static void bad_logit_case(run *r, const int64_t *s) {
    enum { T = 4, V = 40 };
    buffer *logits = filled(r, DT_F32, T * V, 1e4), *stats = poisoned(r, DT_F32, T * 3);
    buffer *loss = poisoned(r, DT_F32, T), *lse = poisoned(r, DT_F32, T), *grad = poisoned(r, r->dt, T * V);
    const int32_t target[T] = {3, 3, -1, 39};
    for (int64_t t = 1; t <= 2; t++) set_element(logits, t * V + s[0], s[1] ? INFINITY : NAN);
    r->dev->ops->xent_stats(r->dev, stats->data, logits->data, V, target, T, V, 0);
    r->dev->ops->xent_merge(r->dev, loss->data, lse->data, stats->data, 1, target, T);
    r->dev->ops->xent_grad(r->dev, r->dt, grad->data, logits->data, V, lse->data, target, 1, T, V, 0);
    assert_true(isfinite(element_at(loss, 0)) && isfinite(element_at(loss, 3)));
    assert_true(isnan(element_at(loss, 1)));
    assert_true(element_at(loss, 2) == 0);
    for (int64_t j = 0; j < V; j++) {
        assert_true(isnan(element_at(grad, V + j)));
        assert_true(element_at(grad, 2 * V + j) == 0);
    }
}

static void test_bad_logits(void **state) {
    (void)state;
    static const int64_t places[] = {0, 3, 7, 39};
    for (size_t i = 0; i < 4; i++)
        for (int64_t infinite = 0; infinite < 2; infinite++)
            run_case(bad_logit_case, (int64_t[]){places[i], infinite});
}

// ---- sums

static void sum_case(run *r, const int64_t *s) {
    buffer *x = filled(r, DT_F32, s[0], 3);
    double sum = 0, squares = 0, got[2] = {NAN, NAN};
    for (int64_t i = 0; i < s[0]; i++) sum += x->value[i], squares += x->value[i] * x->value[i];
    r->dev->ops->sum(r->dev, &got[0], x->data, s[0]);
    r->dev->ops->sumsq(r->dev, &got[1], DT_F32, x->data, s[0]);
    within(fabs(got[0] - sum), 1e-12 * (1 + fabs(squares)), "sum");
    within(fabs(got[1] - squares), 1e-13 * squares, "sumsq");
    r->record = realloc(r->record, r->recorded + sizeof got);
    memcpy(r->record + r->recorded, got, sizeof got);
    r->recorded += sizeof got;
    set_element(x, s[0] - 1, -INFINITY);
    r->dev->ops->sumsq(r->dev, &got[1], DT_F32, x->data, s[0]);
    assert_true(isinf(got[1]));
    set_element(x, s[0] / 2, NAN);
    r->dev->ops->sumsq(r->dev, &got[1], DT_F32, x->data, s[0]);
    r->dev->ops->sum(r->dev, &got[0], x->data, s[0]);
    assert_true(isnan(got[0]) && isnan(got[1]));
}

// The squares of bf16 numbers, which are exact in fp64.
static void half_case(run *r, const int64_t *s) {
    buffer *x = filled(r, DT_BF16, s[0], 3);
    double squares = 0, got = NAN;
    for (int64_t i = 0; i < s[0]; i++) squares += x->value[i] * x->value[i];
    r->dev->ops->sumsq(r->dev, &got, DT_BF16, x->data, s[0]);
    within(fabs(got - squares), 1e-13 * squares, "sumsq of bf16");
    set_element(x, s[0] / 2, INFINITY);
    r->dev->ops->sumsq(r->dev, &got, DT_BF16, x->data, s[0]);
    assert_true(isinf(got));
}

static void test_sums(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 3, 7, 255, 257, 4099, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        run_case(sum_case, sizes + i);
        run_case(half_case, sizes + i);
    }
}

// ---- the device

static void test_device(void **state) {
    (void)state;
    device *d = NULL;
    err *e = cpu_open(0, &d);
    assert_non_null(strstr(err_text(e), "at least 1 thread"));
    assert_null(d);
    err_free(e);
    assert_null(cpu_open(2, &d));
    assert_true(d->ops->host_memory);
    char *p = NULL, back[5];
    assert_null(d->ops->alloc(d, 100, (void **)&p));
    assert_int_equal((uintptr_t)p % 64, 0);
    d->ops->upload(d, p, "abcd", 5);
    d->ops->copy(d, p + 10, p, 5);
    d->ops->zero(d, p, 5);
    d->ops->download(d, back, p + 10, 5);
    assert_string_equal(back, "abcd");
    assert_int_equal(p[0] | p[4], 0);
    d->ops->free(d, p);
    void *huge = &huge;
    e = d->ops->alloc(d, SIZE_MAX - 5, &huge);
    assert_int_equal(err_get_code(e), ERR_SYSTEM);
    err_free(e);
    assert_null(d->ops->sync(d));
    d->ops->close(d);
}

// The exp of every set of loops, where results are subnormal and where they overflow too, against fp64.
static void check_exp(const lanes *l) {
    enum { N = 100003 };
    static float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = -110.0f + 200.0f * (float)i / N;
    x[0] = -INFINITY, x[1] = INFINITY, x[2] = NAN, x[3] = 0, x[4] = 1e30f, x[5] = -1e30f;
    l->scaled_exp(y, x, 1, 0, N);
    assert_true(y[0] == 0 && y[1] == INFINITY && isnan(y[2]) && y[3] == 1 && y[4] == INFINITY && y[5] == 0);
    double worst = 0;
    for (int i = 6; i < N; i++) {
        double want = exp((double)x[i]), ulp = ldexp(1, (want < 0x1p-126 ? -126 : ilogb(want)) - 23);
        if (want > FLT_MAX)
            assert_true(y[i] == INFINITY || y[i] == FLT_MAX);
        else
            worst = fmax(worst, fabs(y[i] - want) / ulp);
        assert_false(isnan(y[i]));
    }
    within(worst, 2, l->name);
}

static void test_exp(void **state) {
    (void)state;
    for (const lanes *const *set = lanes_all(); *set; set++)
        if ((*set)->supported()) check_exp(*set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xent_reference), cmocka_unit_test(test_xent),
        cmocka_unit_test(test_bad_logits),     cmocka_unit_test(test_sums),
        cmocka_unit_test(test_device),         cmocka_unit_test(test_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
