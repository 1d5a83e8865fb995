// AdamW and the forms in which the optimizer keeps its state.
#include "ops_check.h"

// ---- an fp32 number in two halves

static float of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

// Lower halves: none, one, around the tie, the most, and some in between.
static const uint32_t low[] = {0,      1,      2,      0x1234, 0x7ffe, 0x7fff,
                               0x8000, 0x8001, 0x8002, 0xbeef, 0xfffe, 0xffff};
enum { LOWS = sizeof low / sizeof *low };

static bool is_tie(uint32_t u) { return (u & 0xffffu) == 0x8000u; }

// No bf16 is nearer, and in all but ties it is what bf16_from_float gives.
static void check_nearest(float f, halves h) {
    double error = fabs((double)f - bf16_to_float(h.near));
    if (isinf(bf16_to_float(h.near))) // what is half a step beyond the largest bf16, as IEEE 754 has it
        assert_true(isinf(f) || fabsf(f) >= of_bits(0x7f7f8000u));
    else
        for (int step = -1; step <= 1; step += 2) {
            float other = bf16_to_float((bf16)(h.near + step));
            assert_true(isnan(other) || isinf(other) || error <= fabs((double)f - other));
        }
    if (!is_tie(bits_of(f))) assert_int_equal(h.near, bf16_from_float(f));
    if (is_tie(bits_of(f)))
        assert_true(isinf(bf16_to_float(h.near)) || fabsf(bf16_to_float(h.near)) > fabsf(f));
}

// Every upper half with these lower halves: zeros, subnormals, ties, the largest, infinities, NaN.
static void test_halves(void **state) {
    (void)state;
    for (uint32_t high = 0; high < 0x10000u; high++)
        for (int i = 0; i < LOWS; i++) {
            uint32_t u = high << 16 | low[i];
            float f = of_bits(u);
            halves h = float_split(f);
            if (isnan(f)) {
                assert_true(isnan(bf16_to_float(h.near)) && isnan(float_join(h.near, h.rest)));
                continue;
            }
            if (bits_of(float_join(h.near, h.rest)) != u) fail_msg("%08x does not come back", u);
            check_nearest(f, h);
        }
}

// The loops of every instruction set, at every length up to two vectors and one more.
static void halves_lanes(const lanes *l) {
    float x[LOWS], back[LOWS + 1];
    bf16 near[LOWS + 1];
    int16_t rest[LOWS + 1];
    for (uint32_t high = 0; high < 0x10000u; high++) {
        int n = (int)(high % LOWS) + 1;
        for (int i = 0; i < n; i++) x[i] = of_bits(high << 16 | low[i]);
        near[n] = 0xa5a5, rest[n] = 0x5a5a, back[n] = 7;
        l->split(near, rest, x, n);
        l->join(back, near, rest, n);
        assert_true(near[n] == 0xa5a5 && rest[n] == 0x5a5a && back[n] == 7);
        for (int i = 0; i < n; i++) {
            halves h = float_split(x[i]);
            assert_int_equal(near[i], h.near);
            assert_int_equal(rest[i], h.rest);
            assert_int_equal(bits_of(back[i]), bits_of(float_join(h.near, h.rest)));
        }
    }
}

static void test_halves_lanes(void **state) {
    (void)state;
    for (const lanes *const *set = lanes_all(); *set; set++)
        if ((*set)->supported()) halves_lanes(*set);
}

// ---- AdamW

static void adamw_reference(const adamw *a, double *w, double *m, double *v, const double *grad) {
    double bias1 = 1 - pow(a->beta1, (double)a->step), bias2 = 1 - pow(a->beta2, (double)a->step);
    for (int64_t i = 0; i < a->n; i++) {
        double g = grad[i] * a->grad_scale;
        w[i] *= 1 - (double)a->lr * a->decay;
        m[i] += (1 - (double)a->beta1) * (g - m[i]);
        v[i] = a->beta2 * v[i] + (1 - (double)a->beta2) * g * g;
        w[i] -= a->lr / bias1 * m[i] / (sqrt(v[i]) / sqrt(bias2) + a->eps);
    }
}

// Weights of a case: fp32, or the same numbers in halves.
typedef struct weights {
    buffer *whole, *near, *rest;
} weights;

static weights make_weights(run *r, int64_t n) {
    weights w = {.whole = filled(r, DT_F32, n, 1)};
    if (r->dt == DT_F32) return w;
    w.near = poisoned(r, DT_BF16, n), w.rest = poisoned(r, DT_BF16, n);
    for (int64_t i = 0; i < n; i++) {
        halves h = float_split(((float *)w.whole->data)[i]);
        ((bf16 *)w.near->data)[i] = h.near;
        ((int16_t *)w.rest->data)[i] = h.rest;
    }
    return w;
}

static adamw ask(const run *r, const weights *w, buffer *m, buffer *v, const buffer *grad) {
    return (adamw){.dt = r->dt,
                   .n = grad->n,
                   .weight = r->dt == DT_F32 ? w->whole->data : w->near->data,
                   .rest = r->dt == DT_F32 ? NULL : w->rest->data,
                   .m = m->data,
                   .v = v->data,
                   .grad = grad->data,
                   .grad_scale = 0.7f,
                   .lr = 0.01f,
                   .beta1 = 0.9f,
                   .beta2 = 0.95f,
                   .eps = 1e-8f,
                   .decay = 0.1f};
}

static buffer *positive(run *r, int64_t n, double size) {
    buffer *b = poisoned(r, DT_F32, n);
    for (int64_t i = 0; i < n; i++) set_element(b, i, fabs(uniform(r)) * size);
    return b;
}

// The same update of the same numbers in fp32: what the halves hold must be equal to it, bit for bit.
static void same_as_whole(run *r, const adamw *done, const weights *w, buffer *m, buffer *v) {
    adamw a = *done;
    a.dt = DT_F32, a.weight = w->whole->data, a.rest = NULL, a.m = m->data, a.v = v->data;
    for (a.step = 1; a.step < done->step; a.step++) r->dev->ops->adamw(r->dev, &a);
    for (int64_t i = 0; i < a.n; i++) {
        float whole = ((float *)w->whole->data)[i];
        bf16 near = ((bf16 *)w->near->data)[i];
        assert_int_equal(bits_of(float_join(near, ((int16_t *)w->rest->data)[i])), bits_of(whole));
        assert_int_equal(near, float_split(whole).near);
    }
}

static void adamw_case(run *r, const int64_t *s) {
    int64_t n = s[0];
    weights w = make_weights(r, n);
    buffer *m = filled(r, DT_F32, n, 0.1), *v = positive(r, n, 0.01), *grad = filled(r, DT_F32, n, 2);
    buffer *m_too = filled(r, DT_F32, n, 0), *v_too = filled(r, DT_F32, n, 0);
    memcpy(m_too->data, m->data, buffer_bytes(m)), memcpy(v_too->data, v->data, buffer_bytes(v));
    double *w64 = zeros(n), *m64 = zeros(n), *v64 = zeros(n);
    memcpy(w64, w.whole->value, (size_t)n * sizeof(double));
    memcpy(m64, m->value, (size_t)n * sizeof(double));
    memcpy(v64, v->value, (size_t)n * sizeof(double));
    adamw a = ask(r, &w, m, v, grad);
    for (a.step = 1; a.step <= 5; a.step++) {
        adamw_reference(&a, w64, m64, v64, grad->value);
        r->dev->ops->adamw(r->dev, &a);
    }
    if (r->dt == DT_BF16) same_as_whole(r, &a, &w, m_too, v_too);
    expect(r, w.whole, w64, 1e-6, "adamw weights");
    expect(r, m, m64, 1e-6, "adamw m");
    expect(r, v, v64, 1e-6, "adamw v");
    free(w64);
    free(m64);
    free(v64);
}

static void test_adamw(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 3, 7, 17, 65, 1000, 30001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) run_case(adamw_case, sizes + i);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_halves_lanes),
        cmocka_unit_test(test_adamw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
