// Causal attention, forward and backward, against fp64, and the fp64 gradient against finite differences.
#include "ops_check.h"

enum { BATCH, ROWS, HEADS, KV, DIM, WINDOW, DOCS, PAD, Q_START, Q_ROWS, FIELDS };

// Everything in fp64; arrays are packed as [batch*rows][heads][dim].
typedef struct model {
    int64_t batch, rows, heads, kv, dim, window;
    const int32_t *start;
    double scale;
    double *q, *k, *v, *g;            // g: the gradient of the result
    double *out, *lse, *dq, *dk, *dv; // results
} model;

static int64_t first_seen(const model *m, int64_t b, int64_t i) {
    int64_t first = m->start ? m->start[b * m->rows + i] : 0;
    return m->window && i - m->window + 1 > first ? i - m->window + 1 : first;
}

static double inner(const double *x, const double *y, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += x[i] * y[i];
    return s;
}

// Weights of query i of head h over keys 0..i; returns log sum exp.
static double weights(const model *m, int64_t b, int64_t h, int64_t i, double *p) {
    int64_t kv = h / (m->heads / m->kv), first = first_seen(m, b, i);
    const double *q = m->q + ((b * m->rows + i) * m->heads + h) * m->dim;
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= i; j++) {
        p[j] = j < first ? -INFINITY
                         : m->scale * inner(q, m->k + ((b * m->rows + j) * m->kv + kv) * m->dim, m->dim);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j <= i; j++) sum += exp(p[j] - most);
    for (int64_t j = 0; j <= i; j++) p[j] = exp(p[j] - most) / sum;
    return most + log(sum);
}

static void attend_row(const model *m, int64_t b, int64_t h, int64_t i, double *p) {
    int64_t kv = h / (m->heads / m->kv), at = ((b * m->rows + i) * m->heads + h) * m->dim;
    m->lse[(b * m->heads + h) * m->rows + i] = weights(m, b, h, i, p);
    for (int64_t d = 0; d < m->dim; d++) {
        m->out[at + d] = 0;
        for (int64_t j = 0; j <= i; j++)
            m->out[at + d] += p[j] * m->v[((b * m->rows + j) * m->kv + kv) * m->dim + d];
    }
}

static void grad_row(const model *m, int64_t b, int64_t h, int64_t i, const double *p) {
    int64_t kv = h / (m->heads / m->kv), at = ((b * m->rows + i) * m->heads + h) * m->dim;
    double delta = inner(m->g + at, m->out + at, m->dim);
    for (int64_t j = 0; j <= i; j++) {
        int64_t key = ((b * m->rows + j) * m->kv + kv) * m->dim;
        double ds = p[j] * (inner(m->g + at, m->v + key, m->dim) - delta) * m->scale;
        for (int64_t d = 0; d < m->dim; d++) {
            m->dv[key + d] += p[j] * m->g[at + d];
            m->dq[at + d] += ds * m->k[key + d];
            m->dk[key + d] += ds * m->q[at + d];
        }
    }
}

static void solve(const model *m, int64_t first, int64_t count, bool gradient) {
    double *p = zeros(m->rows);
    for (int64_t b = 0; b < m->batch; b++)
        for (int64_t h = 0; h < m->heads; h++)
            for (int64_t i = first; i < first + count; i++) {
                attend_row(m, b, h, i, p);
                if (gradient) grad_row(m, b, h, i, p);
            }
    free(p);
}

static model make_model(const int64_t *s) {
    model m = {.batch = s[BATCH], .rows = s[ROWS], .heads = s[HEADS], .kv = s[KV], .dim = s[DIM]};
    m.window = s[WINDOW];
    m.scale = 1 / sqrt((double)m.dim);
    int64_t q = m.batch * m.rows * m.heads * m.dim, k = m.batch * m.rows * m.kv * m.dim;
    double **wide[] = {&m.q, &m.g, &m.out, &m.dq}, **narrow[] = {&m.k, &m.v, &m.dk, &m.dv};
    for (int i = 0; i < 4; i++) *wide[i] = zeros(q), *narrow[i] = zeros(k);
    m.lse = zeros(m.batch * m.heads * m.rows);
    return m;
}

static void free_model(model *m) {
    double *all[] = {m->q, m->g, m->out, m->dq, m->k, m->v, m->dk, m->dv, m->lse};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// Documents of uneven lengths, none the same in two sequences.
static int32_t *documents(const int64_t *s) {
    if (!s[DOCS]) return NULL;
    int32_t *start = malloc((size_t)(s[BATCH] * s[ROWS]) * sizeof *start);
    assert_non_null(start);
    for (int64_t b = 0; b < s[BATCH]; b++)
        for (int64_t i = 0, from = 0; i < s[ROWS]; i++) {
            if (i - from >= s[DOCS] + (i + b) % 5) from = i;
            start[b * s[ROWS] + i] = (int32_t)from;
        }
    return start;
}

// Moves a head matrix between the device layout (ld, column) and a packed fp64 array.
static void fill_heads(run *r, buffer *x, int64_t tokens, int64_t ld, int64_t column, int64_t n, double *to) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t j = 0; j < n; j++) {
            set_element(x, t * ld + column + j, uniform(r) * 2);
            to[t * n + j] = x->value[t * ld + column + j];
        }
}

static void expect_heads(run *r, const buffer *x, int64_t batch, int64_t rows, int64_t first, int64_t count,
                         int64_t ld, int64_t column, int64_t n, const double *want, double tol,
                         const char *what) {
    buffer *got = poisoned(r, x->dt, batch * count * n);
    double *part = zeros(batch * count * n);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < n; j++) {
                int64_t t = b * rows + first + i, at = (b * count + i) * n + j;
                set_element(got, at, element_at(x, t * ld + column + j));
                part[at] = want[t * n + j];
            }
    expect(r, got, part, tol, what);
    free(part);
}

// The packed buffer q|k|v and what one case needs of it.
typedef struct packing {
    int64_t tokens, ld, ld_out, q, k; // q: columns of q; k: of k and of v
} packing;

static packing pack(const int64_t *s) {
    packing p = {.tokens = s[BATCH] * s[ROWS], .q = s[HEADS] * s[DIM], .k = s[KV] * s[DIM]};
    p.ld = p.q + 2 * p.k + s[PAD];
    p.ld_out = p.q + s[PAD];
    return p;
}

static attention describe(run *r, const int64_t *s, const packing *p, const model *m, buffer *qkv) {
    dtype dt = r->dt;
    return (attention){.dt = dt,
                       .batch = m->batch,
                       .rows = m->rows,
                       .q_start = s[Q_START],
                       .q_rows = s[Q_ROWS] ? s[Q_ROWS] : m->rows,
                       .heads = m->heads,
                       .kv_heads = m->kv,
                       .head_dim = m->dim,
                       .window = m->window,
                       .scale = (float)m->scale,
                       .start = m->start,
                       .q = qkv->data,
                       .k = element(dt, qkv->data, p->q),
                       .v = element(dt, qkv->data, p->q + p->k),
                       .ld = p->ld,
                       .ld_out = p->ld_out};
}

// Rows the queries cannot see stay NaN: nothing may read them.
static void fill_inputs(run *r, const int64_t *s, const packing *p, model *m, buffer *qkv) {
    int64_t seen = s[Q_ROWS] ? s[Q_START] + s[Q_ROWS] : s[ROWS];
    for (int64_t b = 0; b < m->batch; b++) {
        int64_t t = b * m->rows, n = m->heads * m->dim;
        buffer rows = *qkv;
        rows.data = element(r->dt, qkv->data, t * p->ld);
        rows.value = qkv->value + t * p->ld;
        fill_heads(r, &rows, seen, p->ld, 0, n, m->q + t * n);
        n = m->kv * m->dim;
        fill_heads(r, &rows, seen, p->ld, p->q, n, m->k + t * n);
        fill_heads(r, &rows, seen, p->ld, p->q + p->k, n, m->v + t * n);
    }
}

static void forward_case(run *r, const int64_t *s) {
    model m = make_model(s);
    packing p = pack(s);
    int32_t *start = documents(s);
    m.start = start;
    buffer *qkv = poisoned(r, r->dt, p.tokens * p.ld), *out = poisoned(r, r->dt, p.tokens * p.ld_out);
    buffer *lse = poisoned(r, DT_F32, m.batch * m.heads * m.rows);
    fill_inputs(r, s, &p, &m, qkv);
    attention a = describe(r, s, &p, &m, qkv);
    a.out = out->data, a.lse = lse->data;
    if (compared(r)) solve(&m, a.q_start, a.q_rows, false);
    r->dev->ops->attention(r->dev, &a);
    expect_heads(r, out, m.batch, m.rows, a.q_start, a.q_rows, p.ld_out, 0, p.q, m.out,
                 tolerance(r->dt, 1e-6), "attention");
    expect_heads(r, lse, m.batch * m.heads, m.rows, a.q_start, a.q_rows, 1, 0, 1, m.lse, 1e-6, "lse");
    free(start);
    free_model(&m);
}

static void backward_case(run *r, const int64_t *s) {
    model m = make_model(s);
    packing p = pack(s);
    int32_t *start = documents(s);
    m.start = start;
    buffer *qkv = poisoned(r, r->dt, p.tokens * p.ld), *out = poisoned(r, r->dt, p.tokens * p.ld_out);
    buffer *lse = poisoned(r, DT_F32, m.batch * m.heads * m.rows), *delta = poisoned(r, DT_F32, lse->n);
    buffer *grad = poisoned(r, r->dt, qkv->n), *d_out = poisoned(r, r->dt, out->n);
    fill_inputs(r, s, &p, &m, qkv);
    fill_heads(r, d_out, p.tokens, p.ld_out, 0, p.q, m.g);
    attention a = describe(r, s, &p, &m, qkv);
    a.out = out->data, a.lse = lse->data, a.d_out = d_out->data, a.delta = delta->data;
    a.dq = grad->data, a.dk = element(r->dt, grad->data, p.q), a.dv = element(r->dt, grad->data, p.q + p.k);
    r->dev->ops->attention(r->dev, &a);
    r->dev->ops->attention_grad(r->dev, &a);
    if (compared(r)) solve(&m, 0, m.rows, true);
    // bf16: `out`, which delta is made of, was rounded as well
    double tol = r->dt == DT_F32 ? 2e-6 : 0.012;
    expect_heads(r, grad, 1, p.tokens, 0, p.tokens, p.ld, 0, p.q, m.dq, tol, "dq");
    expect_heads(r, grad, 1, p.tokens, 0, p.tokens, p.ld, p.q, p.k, m.dk, tol, "dk");
    expect_heads(r, grad, 1, p.tokens, 0, p.tokens, p.ld, p.q + p.k, p.k, m.dv, tol, "dv");
    free(start);
    free_model(&m);
}

static const int64_t training[][FIELDS] = {
    // batch rows heads kv dim window docs pad
    {1, 1, 1, 1, 1, 0, 0, 0},      {2, 3, 1, 1, 7, 0, 0, 1},     {1, 17, 3, 3, 8, 0, 0, 0},
    {2, 33, 4, 2, 16, 0, 0, 3},    {1, 65, 6, 1, 33, 0, 0, 0},   {1, 64, 2, 2, 64, 0, 0, 0},
    {1, 130, 3, 1, 17, 0, 0, 2},   {2, 129, 2, 1, 8, 5, 0, 0},   {1, 200, 2, 2, 16, 64, 0, 1},
    {1, 200, 2, 1, 12, 100, 0, 0}, {1, 70, 2, 2, 8, 1, 0, 0},    {2, 150, 2, 1, 8, 0, 11, 0},
    {1, 257, 4, 2, 24, 90, 40, 5}, {3, 65, 3, 3, 128, 0, 30, 0}, {2, 40, 5, 5, 3, 7, 3, 1},
    {1, 300, 2, 1, 64, 0, 0, 0},
};

static void test_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof training / sizeof *training; i++) run_case(forward_case, training[i]);
}

static void test_backward(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof training / sizeof *training; i++) run_case(backward_case, training[i]);
}

// Queries that start late: decoding one token, a few, and a prompt, with rows past them still NaN.
static void test_decoding(void **state) {
    (void)state;
    static const int64_t shapes[][FIELDS] = {
        {1, 100, 4, 2, 16, 0, 0, 0, 99, 1},  {2, 100, 3, 1, 9, 0, 0, 2, 50, 1},
        {1, 200, 2, 2, 8, 20, 0, 0, 130, 1}, {1, 200, 2, 1, 8, 0, 0, 0, 60, 70},
        {2, 90, 4, 4, 5, 0, 0, 0, 0, 1},     {1, 90, 2, 1, 32, 33, 7, 1, 40, 9},
        {1, 300, 2, 2, 64, 0, 0, 0, 0, 65},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) run_case(forward_case, shapes[i]);
}

// ---- the fp64 gradient itself

static double loss_of(void *context) {
    model *m = context;
    solve(m, 0, m->rows, false);
    return inner(m->out, m->g, m->batch * m->rows * m->heads * m->dim);
}

static void test_reference_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][FIELDS] = {
        {1, 7, 2, 1, 3, 0, 0}, {2, 9, 4, 2, 5, 4, 0}, {1, 12, 2, 2, 4, 0, 3}};
    for (size_t i = 0; i < 3; i++) {
        run r = {.random = 7};
        model m = make_model(shapes[i]);
        int32_t *start = documents(shapes[i]);
        m.start = start;
        int64_t q = m.batch * m.rows * m.heads * m.dim, k = m.batch * m.rows * m.kv * m.dim;
        for (int64_t j = 0; j < q; j++) m.q[j] = uniform(&r), m.g[j] = uniform(&r);
        for (int64_t j = 0; j < k; j++) m.k[j] = uniform(&r), m.v[j] = uniform(&r);
        solve(&m, 0, m.rows, true);
        finite_difference(loss_of, &m, m.q, m.dq, q, "dq");
        finite_difference(loss_of, &m, m.k, m.dk, k, "dk");
        finite_difference(loss_of, &m, m.v, m.dv, k, "dv");
        free(start);
        free_model(&m);
    }
}

// ---- NaN in one key must show in every later query, and large scores must not overflow

static void nan_case(run *r, const int64_t *s) {
    packing p = pack(s);
    buffer *qkv = filled(r, r->dt, p.tokens * p.ld, 1), *out = poisoned(r, r->dt, p.tokens * p.ld_out);
    buffer *lse = poisoned(r, DT_F32, s[HEADS] * s[ROWS]);
    model m = {.batch = 1, .rows = s[ROWS], .heads = s[HEADS], .kv = s[KV], .dim = s[DIM], .scale = 1};
    int64_t bad = 20;
    set_element(qkv, bad * p.ld + p.q, NAN);
    attention a = describe(r, s, &p, &m, qkv);
    a.out = out->data, a.lse = lse->data;
    r->dev->ops->attention(r->dev, &a);
    for (int64_t i = 0; i < s[ROWS]; i++) {
        assert_true(isnan(element_at(out, i * p.ld_out)) == (i >= bad));
        assert_true(isnan(element_at(lse, i)) == (i >= bad));
    }
}

static void test_nan_shows(void **state) {
    (void)state;
    run_case(nan_case, (int64_t[FIELDS]){1, 150, 2, 1, 8, 0, 0, 0});
}

static void large_case(run *r, const int64_t *s) {
    packing p = pack(s);
    buffer *qkv = filled(r, r->dt, p.tokens * p.ld, 1000), *out = poisoned(r, r->dt, p.tokens * p.ld_out);
    buffer *lse = poisoned(r, DT_F32, s[HEADS] * s[ROWS]);
    model m = {.batch = 1, .rows = s[ROWS], .heads = s[HEADS], .kv = s[KV], .dim = s[DIM], .scale = 1};
    attention a = describe(r, s, &p, &m, qkv);
    a.out = out->data, a.lse = lse->data;
    r->dev->ops->attention(r->dev, &a);
    for (int64_t i = 0; i < out->n; i++) assert_true(fabs(element_at(out, i)) <= 1000);
    for (int64_t i = 0; i < lse->n; i++) assert_true(isfinite(element_at(lse, i)));
}

static void test_large_scores(void **state) {
    (void)state;
    run_case(large_case, (int64_t[FIELDS]){1, 150, 2, 1, 8, 0, 0, 0});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient), cmocka_unit_test(test_forward),
        cmocka_unit_test(test_decoding),           cmocka_unit_test(test_backward),
        cmocka_unit_test(test_nan_shows),          cmocka_unit_test(test_large_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
