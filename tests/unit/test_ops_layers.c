// Embedding, RMSNorm, rotary embedding, gated feed-forward, add, cast: against fp64, and the fp64 gradients
// against finite differences.
#include "ops_check.h"

static double round_half(dtype dt, double x) {
    return dt == DT_F32 ? x : bf16_to_float(bf16_from_float((float)x));
}

// ---- embedding

static void embed_case(run *r, const int64_t *s) {
    int64_t T = s[0], h = s[1], first = s[2], rows = s[3];
    buffer *table = filled(r, r->dt, rows * h, 1), *y = poisoned(r, r->dt, T * h);
    dtype gdt = s[4] ? r->dt : DT_F32;
    buffer *grad = filled(r, gdt, rows * h, 1), *dy = filled(r, r->dt, T * h, 1);
    buffer *chain = poisoned(r, DT_F32, T);
    int32_t *token = malloc((size_t)T * sizeof *token);
    double *want = zeros(T * h), *dtable = zeros(rows * h);
    memcpy(dtable, grad->value, (size_t)(rows * h) * sizeof *dtable);
    for (int64_t t = 0; t < T; t++) {
        // Some before, some after the rows of this part; many alike
        token[t] = (int32_t)(first - 2 + (int64_t)((uniform(r) + 1) / 2 * (double)(rows + 4)));
        int64_t row = token[t] - first;
        if (row < 0 || row >= rows) continue;
        for (int64_t j = 0; j < h; j++) {
            want[t * h + j] = table->value[row * h + j];
            dtable[row * h + j] += dy->value[t * h + j];
        }
    }
    r->dev->ops->embed(r->dev, r->dt, y->data, table->data, token, T, h, first, rows);
    r->dev->ops->embed_grad(r->dev, r->dt, gdt, grad->data, dy->data, token, chain->data, T, h, first, rows);
    expect(r, y, want, 0, "embed");
    expect(r, grad, dtable, tolerance(gdt, 1e-6), "embed_grad");
    free(token);
    free(want);
    free(dtable);
}

static void test_embed(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {
        {1, 1, 0, 1}, {7, 3, 5, 4}, {33, 65, 0, 17}, {300, 129, 100, 9}, {40, 700, 3, 5}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t half = 0; half < 2; half++) {
            int64_t s[5] = {[4] = half};
            memcpy(s, shapes[i], sizeof shapes[i]);
            run_case(embed_case, s);
        }
}

// ---- RMSNorm. The fp64 model rounds where the op is documented to round, so that bf16 is held to the
// rounding of its results alone.

enum { DELTA = 1, IN_PLACE = 2, RESIDUAL = 4, HALF = 8 }; // HALF: dw in dt
static const double EPS = 1e-5;

typedef struct norm {
    dtype dt; // of the inner rounding
    int64_t T, h;
    double *x, *w, *dy;
    double *y, *rstd, *dx, *dw;
} norm;

static void norm_forward(norm *n) {
    for (int64_t t = 0; t < n->T; t++) {
        double squares = 0;
        for (int64_t j = 0; j < n->h; j++) squares += n->x[t * n->h + j] * n->x[t * n->h + j];
        n->rstd[t] = 1 / sqrt(squares / (double)n->h + EPS);
        for (int64_t j = 0; j < n->h; j++)
            n->y[t * n->h + j] = round_half(n->dt, n->x[t * n->h + j] * n->rstd[t]) * n->w[j];
    }
}

static void norm_backward(norm *n) {
    for (int64_t t = 0; t < n->T; t++) {
        const double *x = n->x + t * n->h, *dy = n->dy + t * n->h;
        double along = 0;
        for (int64_t j = 0; j < n->h; j++) along += n->w[j] * dy[j] * x[j];
        along *= n->rstd[t] * n->rstd[t] / (double)n->h;
        for (int64_t j = 0; j < n->h; j++) {
            n->dx[t * n->h + j] += n->rstd[t] * (n->w[j] * dy[j] - x[j] * along);
            n->dw[j] += dy[j] * round_half(n->dt, x[j] * n->rstd[t]);
        }
    }
}

static norm make_norm(dtype dt, int64_t T, int64_t h) {
    return (norm){dt,           T,       h, zeros(T * h), zeros(h), zeros(T * h), zeros(T * h), zeros(T),
                  zeros(T * h), zeros(h)};
}

static void free_norm(norm *n) {
    double *all[] = {n->x, n->w, n->dy, n->y, n->rstd, n->dx, n->dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void norm_case(run *r, const int64_t *s) {
    int64_t T = s[0], h = s[1], mode = s[2], n = T * h;
    norm m = make_norm(r->dt, T, h);
    buffer *x = filled(r, r->dt, n, 3), *delta = filled(r, r->dt, n, 1), *w = filled(r, r->dt, h, 1);
    buffer *y = poisoned(r, r->dt, n), *rstd = poisoned(r, DT_F32, T);
    buffer *sum = mode & IN_PLACE ? x : poisoned(r, r->dt, n);
    for (int64_t i = 0; i < n; i++)
        m.x[i] = mode & DELTA ? round_half(r->dt, (float)(x->value[i] + delta->value[i])) : x->value[i];
    memcpy(m.w, w->value, (size_t)h * sizeof(double));
    norm_forward(&m);
    r->dev->ops->rmsnorm(r->dev, r->dt, y->data, rstd->data, sum->data, x->data,
                         mode & DELTA ? delta->data : NULL, w->data, T, h, (float)EPS);
    // bf16: where x*rstd lies at a tie, the inner rounding may go the other way: one more unit
    expect(r, y, m.y, r->dt == DT_F32 ? 1e-6 : 0.008, "rmsnorm");
    expect(r, rstd, m.rstd, 1e-6, "rstd");
    if (mode & DELTA)
        expect(r, sum, m.x, tolerance(r->dt, 1e-7), "residual sum");
    else if (!(mode & IN_PLACE))
        for (int64_t i = 0; i < n; i++) assert_true(isnan(element_at(sum, i)));
    free_norm(&m);
}

static void norm_grad_case(run *r, const int64_t *s) {
    int64_t T = s[0], h = s[1], mode = s[2], n = T * h;
    norm m = make_norm(r->dt, T, h);
    buffer *x = filled(r, r->dt, n, 3), *dy = filled(r, r->dt, n, 1), *w = filled(r, r->dt, h, 1);
    buffer *residual = filled(r, r->dt, n, 1), *dx = mode & IN_PLACE ? residual : poisoned(r, r->dt, n);
    dtype gdt = mode & HALF ? r->dt : DT_F32;
    buffer *rstd = poisoned(r, DT_F32, T), *dw = filled(r, gdt, h, 1);
    buffer *partial = poisoned(r, DT_F32, ops_norm_partial(T, h));
    bool with = mode & (RESIDUAL | IN_PLACE);
    memcpy(m.x, x->value, (size_t)n * sizeof(double));
    memcpy(m.dy, dy->value, (size_t)n * sizeof(double));
    memcpy(m.w, w->value, (size_t)h * sizeof(double));
    memcpy(m.dw, dw->value, (size_t)h * sizeof(double));
    if (with) memcpy(m.dx, residual->value, (size_t)n * sizeof(double));
    norm_forward(&m);
    norm_backward(&m);
    for (int64_t t = 0; t < T; t++) set_element(rstd, t, m.rstd[t]);
    r->dev->ops->rmsnorm_grad(r->dev, r->dt, gdt, dx->data, dw->data, with ? residual->data : NULL, dy->data,
                              x->data, w->data, rstd->data, partial->data, T, h);
    // One feature: the two terms cancel to about eps/x^2, which leaves few digits
    expect(r, dx, m.dx, h == 1 && !with ? 0.1 : tolerance(r->dt, 1e-6), "rmsnorm dx");
    // bf16: ties of the inner rounding
    expect(r, dw, m.dw, tolerance(gdt, r->dt == DT_F32 ? 1e-6 : 1e-3), "rmsnorm dw");
    free_norm(&m);
}

static const int64_t norm_shapes[][2] = {{1, 1},   {3, 7},     {17, 33}, {65, 300},
                                         {2, 513}, {33, 1300}, {3000, 8}};

static void test_norm(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof norm_shapes / sizeof *norm_shapes; i++)
        for (int64_t mode = 0; mode < 4; mode++)
            run_case(norm_case, (int64_t[]){norm_shapes[i][0], norm_shapes[i][1], mode});
}

static void test_norm_grad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof norm_shapes / sizeof *norm_shapes; i++)
        for (int64_t mode = 0; mode <= RESIDUAL + HALF; mode += 2)
            if ((mode & ~HALF) <= RESIDUAL)
                run_case(norm_grad_case, (int64_t[]){norm_shapes[i][0], norm_shapes[i][1], mode});
}

static double inner(const double *x, const double *y, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += x[i] * y[i];
    return s;
}

static double norm_loss(void *context) {
    norm *n = context;
    norm_forward(n);
    return inner(n->y, n->dy, n->T * n->h);
}

static void test_norm_reference(void **state) {
    (void)state;
    run r = {.random = 3};
    norm m = make_norm(DT_F32, 5, 7);
    for (int64_t i = 0; i < 35; i++) m.x[i] = uniform(&r), m.dy[i] = uniform(&r);
    for (int64_t i = 0; i < 7; i++) m.w[i] = uniform(&r);
    norm_forward(&m);
    norm_backward(&m);
    finite_difference(norm_loss, &m, m.x, m.dx, 35, "rmsnorm dx");
    finite_difference(norm_loss, &m, m.w, m.dw, 7, "rmsnorm dw");
    free_norm(&m);
}

// ---- rotary embedding

static void rotate(double *x, const double *cos, const double *sin, int64_t half, double sign) {
    for (int64_t j = 0; j < half; j++) {
        double a = x[j], b = x[j + half];
        x[j] = a * cos[j] - sign * b * sin[j];
        x[j + half] = b * cos[j] + sign * a * sin[j];
    }
}

static void rope_case(run *r, const int64_t *s) {
    int64_t T = s[0], heads = s[1], dim = s[2], ld = heads * dim + s[3], positions = 13, half = dim / 2;
    buffer *x = filled(r, r->dt, T * ld, 1);
    buffer *cosine = filled(r, DT_F32, positions * half, 1), *sine = filled(r, DT_F32, positions * half, 1);
    int32_t *pos = malloc((size_t)T * sizeof *pos);
    double *want = zeros(T * ld);
    memcpy(want, x->value, (size_t)(T * ld) * sizeof *want);
    for (int64_t t = 0; t < T; t++) {
        pos[t] = (int32_t)((t * 7 + 3) % positions);
        for (int64_t h = 0; h < heads; h++)
            rotate(want + t * ld + h * dim, cosine->value + pos[t] * half, sine->value + pos[t] * half, half,
                   s[4] ? -1 : 1);
    }
    r->dev->ops->rope(r->dev, r->dt, x->data, ld, pos, cosine->data, sine->data, T, heads, dim, s[4]);
    expect(r, x, want, tolerance(r->dt, 3e-7), "rope");
    free(pos);
    free(want);
}

static void test_rope(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {
        {1, 1, 2, 0}, {3, 2, 6, 1}, {17, 5, 8, 0}, {65, 3, 130, 7}, {5, 1, 1100, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t inverse = 0; inverse < 2; inverse++) {
            int64_t s[5] = {0, 0, 0, 0, inverse};
            memcpy(s, shapes[i], sizeof shapes[i]);
            run_case(rope_case, s);
        }
}

// The inverse is the transpose: <rope x, y> = <x, inverse y>, so it is the gradient of a linear map.
static void test_rope_reference(void **state) {
    (void)state;
    double x[6], y[6], u[6], v[6], cosine[3], sine[3];
    run r = {.random = 5};
    for (int i = 0; i < 6; i++) u[i] = x[i] = uniform(&r), v[i] = y[i] = uniform(&r);
    for (int i = 0; i < 3; i++) cosine[i] = uniform(&r), sine[i] = uniform(&r);
    rotate(u, cosine, sine, 3, 1);
    rotate(v, cosine, sine, 3, -1);
    within(fabs(inner(u, y, 6) - inner(x, v, 6)), 1e-14, "rope transpose");
}

// ---- gated feed-forward

static double silu(double g) { return g / (1 + exp(-g)); }

static double silu_slope(double g) {
    double s = 1 / (1 + exp(-g));
    return s * (1 + g * (1 - s));
}

static void swiglu_case(run *r, const int64_t *s) {
    int64_t T = s[0], f = s[1];
    buffer *gu = filled(r, r->dt, T * 2 * f, 8), *y = poisoned(r, r->dt, T * f),
           *dy = filled(r, r->dt, T * f, 1);
    buffer *dgu = s[2] ? gu : poisoned(r, r->dt, T * 2 * f);
    double *want = zeros(T * f), *grad = zeros(T * 2 * f);
    for (int64_t i = 0; i < T * f; i++) {
        int64_t at = i / f * 2 * f + i % f;
        double g = gu->value[at], u = gu->value[at + f], d = dy->value[i];
        want[i] = silu(g) * u;
        grad[at] = d * u * silu_slope(g);
        grad[at + f] = d * silu(g);
    }
    r->dev->ops->swiglu(r->dev, r->dt, y->data, gu->data, T, f);
    r->dev->ops->swiglu_grad(r->dev, r->dt, dgu->data, dy->data, gu->data, T, f);
    expect(r, y, want, tolerance(r->dt, 1e-6), "swiglu");
    expect(r, dgu, grad, tolerance(r->dt, 1e-6), "swiglu_grad");
    free(want);
    free(grad);
}

static void test_swiglu(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 33}, {65, 300}, {2, 1025}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t in_place = 0; in_place < 2; in_place++)
            run_case(swiglu_case, (int64_t[]){shapes[i][0], shapes[i][1], in_place});
}

static double silu_of(void *context) { return silu(*(double *)context); }

static void test_swiglu_reference(void **state) {
    (void)state;
    for (int g = -9; g <= 9; g++) {
        double x = 0.7 * g, slope = silu_slope(x);
        finite_difference(silu_of, &x, &x, &slope, 1, "silu");
    }
}

// Where exp overflows and underflows the gate still has its limits, and NaN stays.
static void extreme_case(run *r, const int64_t *s) {
    (void)s;
    static const double gate[5] = {200, -200, 1e30, -1e30, NAN}, limit[4] = {200, 0, 1e30, 0};
    buffer *gu = poisoned(r, r->dt, 10), *y = poisoned(r, r->dt, 5);
    for (int64_t j = 0; j < 5; j++) set_element(gu, j, gate[j]), set_element(gu, 5 + j, 1);
    r->dev->ops->swiglu(r->dev, r->dt, y->data, gu->data, 1, 5);
    for (int64_t j = 0; j < 4; j++) assert_true(fabs(element_at(y, j) - limit[j]) <= 0.01 * fabs(limit[j]));
    assert_true(isnan(element_at(y, 4)));
}

static void test_swiglu_extremes(void **state) {
    (void)state;
    run_case(extreme_case, NULL);
}

// ---- add and cast

static void add_case(run *r, const int64_t *s) {
    buffer *y = filled(r, r->dt, s[0], 1), *x = filled(r, r->dt, s[0], 1);
    double *want = zeros(s[0]);
    for (int64_t i = 0; i < s[0]; i++) want[i] = y->value[i] + x->value[i];
    r->dev->ops->add(r->dev, r->dt, y->data, x->data, s[0]);
    expect(r, y, want, tolerance(r->dt, 1e-7), "add");
    free(want);
}

// Every conversion against dtype.h, element by element, NaN and infinities too.
static void cast_case(run *r, const int64_t *s) {
    int64_t n = s[0];
    for (int to = DT_F32; to <= DT_BF16; to++) {
        buffer *x = filled(r, r->dt, n, 1e3), *y = poisoned(r, (dtype)to, n);
        static const double odd[] = {NAN,   INFINITY, -INFINITY,  0,         -0.0,
                                     1e-40, 3.3e38,   1.00390625, 1.01171875};
        for (int64_t i = 0; i < 9 && i < n; i++) set_element(x, n - 1 - i, odd[i]);
        r->dev->ops->cast(r->dev, (dtype)to, y->data, r->dt, x->data, n);
        for (int64_t i = 0; i < n; i++) {
            double want = round_half((dtype)to, x->value[i]), got = element_at(y, i);
            assert_true(isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want));
        }
    }
}

static void test_add_and_cast(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 3, 7, 17, 65, 1000, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        run_case(add_case, sizes + i);
        run_case(cast_case, sizes + i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_norm_reference),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_norm_grad),
        cmocka_unit_test(test_rope_reference),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_swiglu_reference),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_swiglu_extremes),
        cmocka_unit_test(test_add_and_cast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
