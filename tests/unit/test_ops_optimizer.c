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
                   .weight = w->near ? w->near->data : w->whole->data,
                   .rest = w->rest ? w->rest->data : NULL,
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

// ---- moments: what the formats promise

static const float sizes_of_blocks[] = {1, 3.7e-5f, 1.1e20f, 2e-38f, 1e-44f};

// A checkpoint holds what codes mean; read back, it means the same.
static void test_codes(void **state) {
    (void)state;
    for (int second = 0; second < 2; second++) {
        assert_true(moment_share(moment_levels(second), second) == 1);
        for (size_t i = 0; i < sizeof sizes_of_blocks / sizeof(float); i++)
            for (int code = 0; code < 256; code++) {
                float most = sizes_of_blocks[i], x = moment_decode((uint8_t)code, most, second);
                float back = moment_decode(moment_nearest(x, most, second), most, second);
                if (i < 3) assert_int_equal(bits_of(fabsf(back)), bits_of(fabsf(x)));
                assert_true(back == x);
            }
    }
    assert_int_equal(moment_encode(0, 0, true, 0), 0);
    assert_int_equal(moment_encode(0, 1, true, 65535), 0);
    assert_int_equal(moment_encode(1e-30f, 1, true, 65535), 1); // never zero
    assert_int_equal(moment_nearest(1e-30f, 1, true), 1);
    assert_int_equal(moment_encode(1, 1, true, 0), 255);
    assert_int_equal(moment_encode(-1, 1, false, 0), 255);
    assert_int_equal(moment_encode(1, 1, false, 0), 127);
}

// Over all random numbers the mean of what is kept is the number itself, and it is one of two neighbours.
static void unbiased(float x, float most, bool second) {
    double sum = 0, least = INFINITY, greatest = -INFINITY;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        double y = moment_decode(moment_encode(x, most, second, bits), most, second);
        sum += y;
        least = fmin(least, y), greatest = fmax(greatest, y);
    }
    assert_true(least <= x * (x > 0 ? 1.000001 : 0.999999) && greatest >= x * (x > 0 ? 0.999999 : 1.000001));
    within(fabs(sum / 65536 - x), 3e-5 * (greatest - least) + 1e-6 * fabs((double)x), "mean of random codes");
    uint8_t low = moment_nearest((float)least, most, second),
            high = moment_nearest((float)greatest, most, second);
    assert_true(abs((int)low - (int)high) <= 1 || (low | high) >= 128);
}

static void unbiased_half(float x) {
    double sum = 0;
    for (uint32_t bits = 0; bits < 65536; bits++) sum += bf16_to_float(moment_round(x, bits));
    within(fabs(sum / 65536 - x), 1e-7 * fabs((double)x), "mean of random bf16");
}

static void test_unbiased(void **state) {
    (void)state;
    static const float x[] = {1, 0.77f, 0.5f, 0.1f, 0.031f, 1e-3f, 2.2e-5f, 1e-8f};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        unbiased(x[i], 1, true);
        unbiased(x[i] * 3e-7f, 3e-7f, true);
        unbiased(x[i], 1, false);
        unbiased(-x[i] * 5e3f, 5e3f, false);
        unbiased_half(x[i]);
        unbiased_half(-x[i]);
    }
    assert_true(isnan(bf16_to_float(moment_round(NAN, 65535))));
    assert_true(bf16_to_float(moment_round(INFINITY, 65535)) == INFINITY);
}

// Bits of neighbouring places, of places 2^32 apart, and of other keys: each is set half of the time, and
// two of them agree half of the time.
static void test_random_bits(void **state) {
    (void)state;
    enum { N = 20000 };
    int set[32] = {0}, alike[3] = {0};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t x = moment_random(moment_dice_of(77, i), i);
        uint32_t other[3] = {moment_random(moment_dice_of(77, i), i + 1),
                             moment_random(moment_dice_of(78, i), i),
                             moment_random(moment_dice_of(77, i + (1ull << 32)), i)};
        for (int b = 0; b < 32; b++) set[b] += (int)(x >> b & 1);
        for (int k = 0; k < 3; k++) alike[k] += 32 - __builtin_popcount(x ^ other[k]);
    }
    for (int b = 0; b < 32; b++) assert_true(abs(set[b] - N / 2) < 5 * 71); // 5 sigma of sqrt(N)/2
    for (int k = 0; k < 3; k++) assert_true(abs(alike[k] - 16 * N) < 5 * 400);
}

static void moments_lanes(const lanes *l) {
    enum { N = 37 };
    float x[N], y[N + 1];
    uint32_t bits[N + 1];
    uint8_t code[N + 1];
    bf16 half[N + 1];
    moment_dice d = moment_dice_of(0x123456789abcdefu, 5ull << 32);
    int other = 0;
    for (int n = 1; n <= N; n++)
        for (int second = 0; second < 2; second++) {
            bits[n] = 7, code[n] = 0xa5, half[n] = 0xa5a5, y[n] = 7;
            l->random(bits, d, 0xfffffff0u - (uint32_t)n, n);
            for (int i = 0; i < n; i++) {
                assert_int_equal(bits[i], moment_random(d, 0xfffffff0u - (uint32_t)n + (uint32_t)i));
                x[i] = (float)pow((bits[i] % 1000) / 999.0, 6) * (second || i % 2 ? 3.0f : -3.0f);
            }
            float most = l->largest(x, n), want = 0;
            for (int i = 0; i < n; i++) want = fmaxf(want, fabsf(x[i]));
            assert_true(most == want);
            if (most == 0) continue;
            l->encode(code, x, most, second, bits, n);
            l->decode(y, code, most, second, n);
            l->round(half, x, bits, second, n);
            assert_true(bits[n] == 7 && code[n] == 0xa5 && half[n] == 0xa5a5 && y[n] == 7);
            for (int i = 0; i < n; i++) {
                uint32_t mine = second ? bits[i] >> 16 : bits[i] & 0xffffu;
                other += code[i] != moment_encode(x[i], most, second, mine);
                assert_true(bits_of(y[i]) == bits_of(moment_decode(code[i], most, second)));
                assert_int_equal(half[i], moment_round(x[i], mine));
            }
        }
    assert_true(other <= 2); // a probability in other arithmetic
}

static void test_moments_lanes(void **state) {
    (void)state;
    for (const lanes *const *set = lanes_all(); *set; set++)
        if ((*set)->supported()) moments_lanes(*set);
}

// ---- AdamW whose moments are rounded

enum { FORM, LEAD, COLS, WIDTH, COUNT };

typedef struct kept { // both moments
    buffer *m, *v, *m_largest, *v_largest;
} kept;

static buffer *bytes_for(run *r, moments_form f, int64_t n) { // sentinels may begin a byte too late
    return poisoned(r, DT_BF16, (n * (int64_t)moments_size(f) + 1) / 2);
}

static kept make_kept(run *r, moments_form f, int64_t n, int64_t lead) {
    int64_t blocks = moments_blocks(n, lead);
    kept k = {bytes_for(r, f, n), bytes_for(r, f, n), poisoned(r, DT_F32, blocks),
              poisoned(r, DT_F32, blocks)};
    memset(k.m->data, 0, buffer_bytes(k.m)), memset(k.v->data, 0, buffer_bytes(k.v));
    for (int64_t i = 0; i < blocks; i++) set_element(k.m_largest, i, 0), set_element(k.v_largest, i, 0);
    return k;
}

static double value_of(moments_form f, const buffer *b, const buffer *largest, int64_t lead, bool second,
                       int64_t i) {
    int64_t block = i < lead ? 0 : 1 + (i - lead) / MOMENT_BLOCK;
    if (f == MOMENTS_BF16) return bf16_to_float(((bf16 *)b->data)[i]);
    return moment_decode(((uint8_t *)b->data)[i], ((float *)largest->data)[block], second);
}

// How far what is kept may be from the number: to the other of two neighbours, and the sums' own rounding.
static double room(moments_form f, double x, double largest, bool second) {
    double fp32 = 1e-5 * (fabs(x) + 1e-6 * largest),
           r = pow(fabs(x) / largest, 0.25) + 1 / moment_levels(second);
    if (f == MOMENTS_BF16) return fabs(x) / 128 + fp32;
    return largest * (pow(r, 4) - pow(fmax(0, r - 2 / moment_levels(second)), 4)) + fp32;
}

static void check_kept(const int64_t *s, const kept *k, const double *m, const double *v) {
    moments_form f = (moments_form)s[FORM];
    for (int64_t i = 0; i < s[COUNT]; i++) {
        int64_t block = f == MOMENTS_BF16 || i < s[LEAD] ? 0 : 1 + (i - s[LEAD]) / MOMENT_BLOCK;
        double most_m = fabs(element_at(k->m_largest, block)), most_v = element_at(k->v_largest, block);
        if (f == MOMENTS_BF16) most_m = most_v = 1;
        within(fabs(value_of(f, k->m, k->m_largest, s[LEAD], false, i) - m[i]), room(f, m[i], most_m, false),
               "m");
        within(fabs(value_of(f, k->v, k->v_largest, s[LEAD], true, i) - v[i]), room(f, v[i], most_v, true),
               "v");
    }
}

static void record(run *r, const buffer *b) {
    r->record = realloc(r->record, r->recorded + buffer_bytes(b) + 1);
    assert_non_null(r->record);
    memcpy(r->record + r->recorded, b->data, buffer_bytes(b));
    r->recorded += buffer_bytes(b);
}

static void rounded_case(run *r, const int64_t *s) {
    int64_t n = s[COUNT];
    moments_form f = (moments_form)s[FORM];
    weights w = make_weights(r, n);
    buffer *grad = filled(r, DT_F32, n, 2);
    for (int64_t i = 0; i < n; i++) set_element(grad, i, pow(grad->value[i], 5)); // of many sizes
    kept k = make_kept(r, f, n, s[LEAD]);
    adamw a = ask(r, &w, k.m, k.v, grad);
    a.form = f, a.m_largest = k.m_largest->data, a.v_largest = k.v_largest->data, a.lead = s[LEAD];
    a.key = 0x5eed, a.origin = 3, a.at = 5, a.cols = s[COLS], a.width = s[WIDTH];
    double *w64 = zeros(n), *m64 = zeros(n), *v64 = zeros(n);
    for (a.step = 1; a.step <= 3; a.step++) {
        for (int64_t i = 0; i < n; i++) {
            w64[i] = r->dt == DT_F32 ? ((float *)w.whole->data)[i]
                                     : float_join(((bf16 *)w.near->data)[i], ((int16_t *)w.rest->data)[i]);
            m64[i] = value_of(f, k.m, k.m_largest, s[LEAD], false, i);
            v64[i] = value_of(f, k.v, k.v_largest, s[LEAD], true, i);
        }
        adamw_reference(&a, w64, m64, v64, grad->value);
        r->dev->ops->adamw(r->dev, &a);
        if (compared(r)) check_kept(s, &k, m64, v64);
        a.key++;
    }
    if (r->dt == DT_F32) expect(r, w.whole, w64, 1e-6, "weights");
    record(r, k.m), record(r, k.v), record(r, k.m_largest), record(r, k.v_largest);
    free(w64);
    free(m64);
    free(v64);
}

static void test_rounded_moments(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 3, 63, 64, 65, 200, 1500, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        run_case(rounded_case, (int64_t[]){MOMENTS_BF16, 64, 1, 1, sizes[i]});
        run_case(rounded_case, (int64_t[]){MOMENTS_BF16, 64, 7, 30, sizes[i]});
        run_case(rounded_case, (int64_t[]){MOMENTS_INT8, 64, 24, 24, sizes[i]});
        run_case(rounded_case, (int64_t[]){MOMENTS_INT8, 17, 13, 40, sizes[i]});
    }
}

// The moments of a tensor are the same bits whether one rank has it, or several have ranges or columns of it.
enum { TALL = 37, WIDE = 96 };

static void update_slice(device *d, moments_form f, int64_t col0, int64_t cols, int64_t at, int64_t n,
                         bf16 *m, bf16 *v) {
    float w[TALL * WIDE] = {0}, g[TALL * WIDE];
    for (int64_t i = 0; i < n; i++) {
        int64_t place = (at + i) / cols * WIDE + col0 + (at + i) % cols;
        g[i] = (float)(place * 7919 % 1000) * 1e-3f + 1e-4f;
    }
    memset(m, 0, (size_t)n * 2), memset(v, 0, (size_t)n * 2);
    adamw a = {.n = n,
               .weight = w,
               .form = f,
               .m = m,
               .v = v,
               .grad = g,
               .grad_scale = 1,
               .lr = 0.1f,
               .beta1 = 0.9f,
               .beta2 = 0.95f,
               .eps = 1e-8f,
               .step = 1,
               .key = 42,
               .origin = col0,
               .at = at,
               .cols = cols,
               .width = WIDE};
    d->ops->adamw(d, &a);
}

static void test_same_on_any_mesh(void **state) {
    (void)state;
    static bf16 m[TALL * WIDE], v[TALL * WIDE], m2[TALL * WIDE], v2[TALL * WIDE];
    device *d;
    assert_null(cpu_open(2, &d));
    update_slice(d, MOMENTS_BF16, 0, WIDE, 0, TALL * WIDE, m, v);
    update_slice(d, MOMENTS_BF16, 0, WIDE, 1000, 777, m2, v2);
    assert_memory_equal(m2, m + 1000, 777 * 2);
    assert_memory_equal(v2, v + 1000, 777 * 2);
    update_slice(d, MOMENTS_BF16, 40, 56, 0, TALL * 56, m2, v2);
    for (int row = 0; row < TALL; row++) {
        assert_memory_equal(m2 + row * 56, m + row * WIDE + 40, 56 * 2);
        assert_memory_equal(v2 + row * 56, v + row * WIDE + 40, 56 * 2);
    }
    d->ops->close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_halves_lanes),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_random_bits),
        cmocka_unit_test(test_moments_lanes),
        cmocka_unit_test(test_rounded_moments),
        cmocka_unit_test(test_same_on_any_mesh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
