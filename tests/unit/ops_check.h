// What the tests of ops share: random inputs between sentinels, fp64 mirrors, comparisons that NaN fails,
// finite differences, and a runner that repeats a case for every element type, instruction set and thread
// count and wants the same bits from every thread count.
#ifndef SOLAR_OPS_CHECK_H
#define SOLAR_OPS_CHECK_H

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"

// One run of a case: the device to use, and a record of every byte it put out.
typedef struct run {
    device *dev;
    dtype dt;
    uint64_t random;
    char *record;
    size_t recorded;
    struct buffer *made; // all buffers, freed and checked at the end
} run;

// An array of n elements on the device between two bands of sentinels, and its values in fp64.
typedef struct buffer {
    dtype dt;
    int64_t n;
    char *block;
    void *data;
    double *value;
    struct buffer *next;
} buffer;

enum { BAND = 256 }; // bytes of sentinel on each side
static const unsigned char SENTINEL = 0xA5;

static inline double uniform(run *r) { // [-1, 1)
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return (double)(int64_t)r->random / 9223372036854775808.0;
}

static inline size_t buffer_bytes(const buffer *b) { return (size_t)b->n * dtype_size(b->dt); }

static inline double element_at(const buffer *b, int64_t i) {
    return b->dt == DT_F32 ? ((float *)b->data)[i] : bf16_to_float(((bf16 *)b->data)[i]);
}

static inline void set_element(buffer *b, int64_t i, double x) {
    if (b->dt == DT_F32)
        ((float *)b->data)[i] = (float)x;
    else
        ((bf16 *)b->data)[i] = bf16_from_float((float)x);
    b->value[i] = element_at(b, i);
}

// n elements, all NaN. The start is 4 bytes off any vector alignment half of the time.
static inline buffer *poisoned(run *r, dtype dt, int64_t n) {
    buffer *b = calloc(1, sizeof *b);
    assert_non_null(b);
    size_t bytes = (size_t)n * dtype_size(dt), skew = uniform(r) < 0 ? 4 : 0;
    *b = (buffer){.dt = dt, .n = n, .next = r->made};
    r->made = b;
    b->value = calloc((size_t)n + 1, sizeof *b->value);
    b->block = malloc(bytes + 2 * BAND + skew);
    assert_non_null(b->block);
    assert_non_null(b->value);
    memset(b->block, SENTINEL, bytes + 2 * BAND + skew);
    b->data = b->block + BAND + skew;
    // Bytes before data are sentinels whatever the skew; those after it are checked from its end.
    for (int64_t i = 0; i < n; i++) set_element(b, i, NAN);
    return b;
}

static inline buffer *filled(run *r, dtype dt, int64_t n, double size) {
    buffer *b = poisoned(r, dt, n);
    for (int64_t i = 0; i < n; i++) set_element(b, i, size * uniform(r));
    return b;
}

static inline void check_sentinels(const buffer *b) {
    const unsigned char *before = (unsigned char *)b->data - BAND;
    const unsigned char *after = (unsigned char *)b->data + buffer_bytes(b);
    for (int i = 0; i < BAND; i++) {
        if (before[i] != SENTINEL)
            fail_msg("byte %d before an array of %lld was overwritten", i - BAND, (long long)b->n);
        if (after[i] != SENTINEL)
            fail_msg("byte %d after an array of %lld was overwritten", i, (long long)b->n);
    }
}

// Normalised error: largest difference over the largest reference value. NaN if anything is NaN.
static inline double difference(const double *got, const double *want, int64_t n) {
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]);
        if (isnan(d)) return NAN;
        if (d > worst) worst = d;
        if (fabs(want[i]) > scale) scale = fabs(want[i]);
    }
    return worst / (scale > 0 ? scale : 1); // all zero: absolute, as inputs are about 1
}

static inline void within(double error, double tolerance, const char *what) {
    if (!(error <= tolerance)) fail_msg("%s: error %.3g, at most %.3g wanted", what, error, tolerance);
}

// Runs with more threads must give the bits of the run with one: only that one is compared with fp64.
static inline bool compared(const run *r) { return ((cpu_device *)r->dev)->threads == 1; }

// Compares elements of a buffer with fp64 values and records its bytes for the other thread counts.
static inline void expect(run *r, const buffer *got, const double *want, double tolerance, const char *what) {
    if (compared(r)) {
        double *values = calloc((size_t)got->n + 1, sizeof *values), error;
        assert_non_null(values);
        for (int64_t i = 0; i < got->n; i++) values[i] = element_at(got, i);
        error = difference(values, want, got->n);
        free(values);
        char label[200];
        snprintf(label, sizeof label, "%s (%s, %s)", what, got->dt == DT_F32 ? "fp32" : "bf16",
                 ((cpu_device *)r->dev)->lanes->name);
        within(error, tolerance, label);
    }
    r->record = realloc(r->record, r->recorded + buffer_bytes(got) + 1);
    assert_non_null(r->record);
    memcpy(r->record + r->recorded, got->data, buffer_bytes(got));
    r->recorded += buffer_bytes(got);
}

// The rounding of one result to `dt`: half a unit in the last place, on top of fp32 arithmetic.
static inline double tolerance(dtype dt, double fp32) { return dt == DT_F32 ? fp32 : 0.004 + fp32; }

static inline double *zeros(int64_t n) {
    double *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

// The gradient of f by central differences at every element of x against `grad`.
static inline void finite_difference(double (*f)(void *), void *context, double *x, const double *grad,
                                     int64_t n, const char *what) {
    double *slope = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        double old = x[i], h = 1e-5;
        x[i] = old + h;
        double up = f(context);
        x[i] = old - h;
        slope[i] = (up - f(context)) / (2 * h);
        x[i] = old;
    }
    within(difference(grad, slope, n), 1e-7, what);
    free(slope);
}

// Checks the sentinels of everything made, and frees it.
static inline void release(run *r) {
    while (r->made) {
        buffer *b = r->made;
        check_sentinels(b);
        r->made = b->next;
        free(b->block);
        free(b->value);
        free(b);
    }
}

static inline void run_once(run *r, void (*body)(run *, const int64_t *), const int64_t *shape) {
    body(r, shape);
    err *e = r->dev->ops->sync(r->dev);
    if (e) fail_msg("%s", err_text(e));
    release(r);
}

// The case on one instruction set, with 1, 2 and 3 threads: the same bits.
static inline void run_threads(void (*body)(run *, const int64_t *), const int64_t *shape, dtype dt,
                               const lanes *set) {
    run first = {0};
    for (int threads = 1; threads <= 3; threads++) {
        run r = {.dt = dt, .random = 0x9E3779B97F4A7C15u};
        err *e = cpu_open(threads, &r.dev);
        if (e) fail_msg("%s", err_text(e));
        ((cpu_device *)r.dev)->lanes = set;
        run_once(&r, body, shape);
        r.dev->ops->close(r.dev);
        if (threads == 1) {
            first = r;
            continue;
        }
        assert_int_equal(first.recorded, r.recorded);
        if (r.recorded) assert_memory_equal(first.record, r.record, r.recorded);
        free(r.record);
    }
    free(first.record);
}

static inline void run_case(void (*body)(run *, const int64_t *), const int64_t *shape) {
    for (const lanes *const *set = lanes_all(); *set; set++) {
        if (!(*set)->supported()) continue;
        run_threads(body, shape, DT_F32, *set);
        run_threads(body, shape, DT_BF16, *set);
    }
}

#endif
