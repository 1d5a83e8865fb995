// What the tests of the GPU share: every op on the CPU device and on the GPU with the same random inputs,
// outputs full of NaN, bands of NaN around every array that must be neither used nor written. The GPU runs
// each case twice and must give the same bits. Without a GPU, or in a build without CUDA, every test is
// skipped and says why.
#ifndef SOLAR_CUDA_CHECK_H
#define SOLAR_CUDA_CHECK_H

#include "ops_check.h"

enum { CPU, GPU, AGAIN, SIDES };
static const unsigned char NAN_BYTE = 0xFF; // four or two of them are a NaN

// The device of each side, and the arrays of the case at hand.
typedef struct bench {
    run cpu;      // element type and random numbers
    bool aligned; // whether all arrays begin on a boundary of 256 bytes, or some 4 bytes past one
    device *dev[SIDES];
    struct twin *made;
} bench;

// An array on all sides: the same bytes to begin with.
typedef struct twin {
    buffer *host; // the values to begin with
    size_t skew;
    void *block[SIDES], *at[SIDES];
    struct twin *next;
} twin;

// ---- arrays

static inline size_t block_bytes(const twin *x) { return buffer_bytes(x->host) + 2 * BAND + x->skew; }

// A copy of the array between two bands of NaN.
static inline void place(bench *b, twin *x, int side) {
    size_t bytes = block_bytes(x), at = BAND + x->skew;
    char *copy = malloc(bytes);
    assert_non_null(copy);
    memset(copy, NAN_BYTE, bytes);
    memcpy(copy + at, x->host->data, buffer_bytes(x->host));
    err *e = b->dev[side]->ops->alloc(b->dev[side], bytes, &x->block[side]);
    if (e) fail_msg("%s", err_text(e));
    b->dev[side]->ops->upload(b->dev[side], x->block[side], copy, bytes);
    x->at[side] = (char *)x->block[side] + at;
    free(copy);
}

static inline twin *both(bench *b, buffer *host) {
    twin *x = calloc(1, sizeof *x);
    assert_non_null(x);
    *x = (twin){.host = host, .next = b->made};
    x->skew = b->aligned ? 0 : (size_t)((char *)host->data - host->block) - BAND;
    b->made = x;
    for (int side = 0; side < SIDES; side++) place(b, x, side);
    return x;
}

static inline twin *random_twin(bench *b, dtype dt, int64_t n, double size) {
    return both(b, filled(&b->cpu, dt, n, size));
}
static inline twin *nan_twin(bench *b, dtype dt, int64_t n) { return both(b, poisoned(&b->cpu, dt, n)); }

static inline twin *int_twin(bench *b, const int32_t *values, int64_t n) {
    buffer *host = poisoned(&b->cpu, DT_F32, n);
    memcpy(host->data, values, (size_t)n * sizeof *values);
    return both(b, host);
}

// Fetches one side's array back, and its bands unharmed.
static inline char *fetch(bench *b, const twin *x, int side, const char *what) {
    size_t bytes = block_bytes(x), at = BAND + x->skew;
    char *copy = malloc(bytes), *data = malloc(buffer_bytes(x->host) + 1);
    assert_non_null(copy);
    assert_non_null(data);
    b->dev[side]->ops->download(b->dev[side], copy, x->block[side], bytes);
    for (size_t i = 0; i < bytes; i++)
        if ((i < at || i >= bytes - BAND) && (unsigned char)copy[i] != NAN_BYTE)
            fail_msg("%s: byte %zu of %zu, outside the array, was overwritten", what, i, bytes);
    memcpy(data, copy + at, buffer_bytes(x->host));
    free(copy);
    return data;
}

static inline void values_of(const twin *x, char *data, double *out) {
    buffer view = {.dt = x->host->dt, .n = x->host->n, .data = data};
    for (int64_t i = 0; i < view.n; i++) out[i] = element_at(&view, i);
}

// NaN has to be NaN on both sides (what is not written stays so); every other element is compared.
static inline void same(bench *b, const twin *x, double tolerance, const char *what) {
    int64_t n = x->host->n;
    char *data[SIDES], label[100];
    double *value[2] = {zeros(n), zeros(n)};
    for (int side = 0; side < SIDES; side++) data[side] = fetch(b, x, side, what);
    for (int side = 0; side < 2; side++) values_of(x, data[side], value[side]);
    snprintf(label, sizeof label, "%s (%s)", what, x->host->dt == DT_F32 ? "fp32" : "bf16");
    for (int64_t i = 0; i < n; i++) {
        if (isnan(value[CPU][i]) != isnan(value[GPU][i]))
            fail_msg("%s: element %lld is %g on the CPU and %g on the GPU", label, (long long)i,
                     value[CPU][i], value[GPU][i]);
        if (isnan(value[CPU][i])) value[CPU][i] = value[GPU][i] = 0;
    }
    within(difference(value[GPU], value[CPU], n), tolerance, label);
    if (memcmp(data[GPU], data[AGAIN], buffer_bytes(x->host)) != 0)
        fail_msg("%s: other bits the second time", label);
    for (int side = 0; side < SIDES; side++) free(data[side]);
    free(value[0]);
    free(value[1]);
}

// One unit in the last place of bf16: a sum in another order may round the other way.
static inline double near(dtype dt, double fp32) { return dt == DT_F32 ? fp32 : 0.008; }

// ---- running

static inline void drop(bench *b) {
    while (b->made) {
        twin *x = b->made;
        b->made = x->next;
        for (int side = 0; side < SIDES; side++) b->dev[side]->ops->free(b->dev[side], x->block[side]);
        free(x);
    }
    release(&b->cpu);
}

static inline void no_errors(bench *b) {
    for (int side = 0; side < SIDES; side++) {
        err *e = b->dev[side]->ops->sync(b->dev[side]);
        if (e) fail_msg("%s", err_text(e));
    }
}

static inline void run_one(bench *b, void (*body)(bench *, const int64_t *), const int64_t *shape, dtype dt,
                           bool in_line) {
    b->cpu.dt = dt;
    b->cpu.random = 0x9E3779B97F4A7C15u;
    b->aligned = in_line;
    body(b, shape);
    no_errors(b);
    drop(b);
}

static inline void run_both(bench *b, void (*body)(bench *, const int64_t *), const int64_t *shape) {
    for (int dt = DT_F32; dt <= DT_BF16; dt++) {
        run_one(b, body, shape, (dtype)dt, true);
        run_one(b, body, shape, (dtype)dt, false);
    }
}

// `b` is the bench of the group; without a GPU the test ends here. The op `call` runs on every side; x(array)
// is its address there.
#define BENCH                                                                                                \
    bench *b = *state;                                                                                       \
    if (!b) skip();
#define ON_EACH(call)                                                                                        \
    for (int side = 0; side < SIDES; side++) {                                                               \
        device *d = b->dev[side];                                                                            \
        d->ops->call;                                                                                        \
    }
#define AT(array)    ((array)->at[side])
#define COUNT(array) (sizeof(array) / sizeof *(array))

// ---- the group

static inline int open_devices(void **state) {
    bench *b = calloc(1, sizeof *b);
    if (!b) return -1;
    err *e = cuda_open(0, &b->dev[GPU]);
    if (e) {
        print_message("skipped: %s\n", err_text(e));
        err_free(e);
        free(b);
        *state = NULL;
        return 0;
    }
    b->dev[AGAIN] = b->dev[GPU];
    e = cpu_open(1, &b->dev[CPU]);
    if (e) return -1;
    b->cpu.dev = b->dev[CPU];
    *state = b;
    return 0;
}

static inline int close_devices(void **state) {
    bench *b = *state;
    if (!b) return 0;
    b->dev[CPU]->ops->close(b->dev[CPU]);
    b->dev[GPU]->ops->close(b->dev[GPU]);
    free(b);
    return 0;
}

#endif
