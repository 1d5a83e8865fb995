// Attention of the GPU against the CPU device (cuda_check.h): on the ordinary cores, and on the tensor cores.
#include "cuda_check.h"

enum { BATCH, ROWS, HEADS, KV, DIM, WINDOW, DOCS, EXTRA, Q_START, Q_ROWS, FIELDS };

// Documents of uneven lengths, none the same in two sequences.
static twin *documents(bench *b, const int64_t *s) {
    if (!s[DOCS]) return NULL;
    int32_t start[2000];
    for (int64_t i = 0; i < s[BATCH]; i++)
        for (int64_t row = 0, from = 0; row < s[ROWS]; row++) {
            if (row - from >= s[DOCS] + (row + i) % 5) from = row;
            start[i * s[ROWS] + row] = (int32_t)from;
        }
    return int_twin(b, start, s[BATCH] * s[ROWS]);
}

typedef struct attention_arrays {
    twin *qkv, *out, *lse, *start;    // forward
    twin *grad, *d_out, *delta;       // backward
    int64_t tokens, q, k, ld, ld_out; // columns of q, and of k and v
} attention_arrays;

// Rows that no query sees are NaN: nothing may read them.
static attention_arrays attention_inputs(bench *b, const int64_t *s) {
    attention_arrays x = {.tokens = s[BATCH] * s[ROWS], .q = s[HEADS] * s[DIM], .k = s[KV] * s[DIM]};
    dtype dt = b->cpu.dt;
    x.ld = x.q + 2 * x.k + s[EXTRA];
    x.ld_out = x.q + s[EXTRA];
    buffer *qkv = filled(&b->cpu, dt, x.tokens * x.ld, 2);
    int64_t end = s[Q_ROWS] ? s[Q_START] + s[Q_ROWS] : s[ROWS];
    for (int64_t t = 0; t < x.tokens; t++)
        for (int64_t j = 0; t % s[ROWS] >= end && j < x.ld; j++) set_element(qkv, t * x.ld + j, NAN);
    x.qkv = both(b, qkv), x.out = nan_twin(b, dt, x.tokens * x.ld_out);
    x.lse = nan_twin(b, DT_F32, x.tokens * s[HEADS]), x.start = documents(b, s);
    x.grad = nan_twin(b, dt, x.tokens * x.ld), x.d_out = random_twin(b, dt, x.tokens * x.ld_out, 2);
    x.delta = nan_twin(b, DT_F32, x.tokens * s[HEADS]);
    return x;
}

static attention attention_on(const attention_arrays *x, const int64_t *s, dtype dt, int side) {
    return (attention){.dt = dt,
                       .batch = s[BATCH],
                       .rows = s[ROWS],
                       .q_start = s[Q_START],
                       .q_rows = s[Q_ROWS] ? s[Q_ROWS] : s[ROWS],
                       .heads = s[HEADS],
                       .kv_heads = s[KV],
                       .head_dim = s[DIM],
                       .window = s[WINDOW],
                       .scale = (float)(1 / sqrt((double)s[DIM])),
                       .start = x->start ? AT(x->start) : NULL,
                       .q = AT(x->qkv),
                       .k = element(dt, AT(x->qkv), x->q),
                       .v = element(dt, AT(x->qkv), x->q + x->k),
                       .ld = x->ld,
                       .out = AT(x->out),
                       .ld_out = x->ld_out,
                       .lse = AT(x->lse),
                       .d_out = AT(x->d_out),
                       .dq = AT(x->grad),
                       .dk = element(dt, AT(x->grad), x->q),
                       .dv = element(dt, AT(x->grad), x->q + x->k),
                       .delta = AT(x->delta)};
}

static void attention_forward(bench *b, const attention_arrays *x, const int64_t *s) {
    for (int side = 0; side < SIDES; side++) {
        attention a = attention_on(x, s, b->cpu.dt, side);
        b->dev[side]->ops->attention(b->dev[side], &a);
    }
    same(b, x->out, near(b->cpu.dt, 2e-6), "attention");
    same(b, x->lse, 1e-6, "lse");
}

static void forward_case(bench *b, const int64_t *s) {
    attention_arrays x = attention_inputs(b, s);
    attention_forward(b, &x, s);
}

static void backward_case(bench *b, const int64_t *s) {
    attention_arrays x = attention_inputs(b, s);
    attention_forward(b, &x, s);
    for (int side = 0; side < SIDES; side++) {
        attention a = attention_on(&x, s, b->cpu.dt, side);
        b->dev[side]->ops->attention_grad(b->dev[side], &a);
    }
    same(b, x.grad, b->cpu.dt == DT_F32 ? 4e-6 : 0.012, "dq, dk, dv");
}

static void test_attention(void **state) {
    BENCH
    static const int64_t shapes[][FIELDS] = {
        // batch rows heads kv dim window docs extra
        {1, 1, 1, 1, 1, 0, 0, 0},    {2, 3, 1, 1, 7, 0, 0, 1},      {1, 17, 3, 3, 8, 0, 0, 0},
        {2, 33, 4, 2, 16, 0, 0, 8},  {1, 65, 6, 1, 33, 0, 0, 0},    {1, 64, 2, 2, 64, 0, 0, 0},
        {2, 129, 2, 1, 8, 5, 0, 0},  {1, 150, 2, 1, 12, 100, 0, 0}, {1, 70, 2, 2, 8, 1, 0, 0},
        {2, 150, 2, 1, 8, 0, 11, 0}, {1, 160, 4, 2, 24, 90, 40, 5}, {1, 70, 3, 3, 128, 0, 30, 0},
        {1, 70, 2, 1, 80, 0, 0, 0},  {1, 66, 2, 1, 256, 40, 0, 0},  {1, 35, 1, 1, 161, 0, 0, 0},
        {1, 150, 2, 1, 8, 34, 0, 0},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) run_both(b, backward_case, shapes[i]);
}

// Those of bf16 whose rows move in packs are done on the tensor cores. Here the shapes for these alone: some
// of those above come both this way and the other.
static void test_attention_of_bf16(void **state) {
    BENCH
    static const int64_t shapes[][FIELDS] = {
        // batch rows heads kv dim window docs extra, first and number of queries
        {1, 1, 1, 1, 64, 0, 0, 0},      {1, 200, 2, 1, 64, 0, 0, 0},     {2, 150, 2, 2, 64, 70, 0, 8},
        {1, 300, 2, 1, 64, 0, 60, 0},   {1, 129, 4, 1, 64, 0, 0, 0},     {1, 257, 1, 1, 64, 1, 0, 0},
        {2, 140, 4, 2, 128, 0, 0, 0},   {1, 200, 1, 1, 128, 90, 40, 16}, {1, 64, 6, 2, 128, 0, 0, 0},
        {1, 330, 2, 1, 128, 0, 100, 0}, {1, 280, 1, 1, 128, 33, 0, 0},
    };
    static const int64_t decoding[][FIELDS] = {
        {1, 200, 2, 1, 64, 0, 0, 0, 130, 70},
        {2, 150, 2, 2, 128, 0, 0, 8, 149, 1},
        {1, 300, 1, 1, 64, 90, 0, 0, 131, 140},
        {1, 150, 2, 1, 128, 0, 33, 0, 70, 65},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) run_one(b, backward_case, shapes[i], DT_BF16, true);
    for (size_t i = 0; i < COUNT(decoding); i++) run_one(b, forward_case, decoding[i], DT_BF16, true);
}

static void test_decoding(void **state) {
    BENCH
    static const int64_t shapes[][FIELDS] = {
        {1, 100, 4, 2, 16, 0, 0, 0, 99, 1},  {2, 100, 3, 1, 9, 0, 0, 2, 50, 1},
        {1, 200, 2, 2, 8, 20, 0, 0, 130, 1}, {1, 200, 2, 1, 8, 0, 0, 0, 60, 70},
        {2, 90, 4, 4, 5, 0, 0, 0, 0, 1},     {1, 90, 2, 1, 32, 33, 7, 1, 40, 9},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) run_both(b, forward_case, shapes[i]);
}

// A NaN key shows in every later query and in no earlier one; scores of a million do not overflow.
static void hard_case(bench *b, const int64_t *s) {
    int64_t shape[FIELDS] = {1, 150, 2, 1, s[1], 0, 0, 0};
    attention_arrays x = attention_inputs(b, shape);
    buffer *qkv = filled(&b->cpu, b->cpu.dt, x.tokens * x.ld, s[0] ? 1 : 1000);
    if (s[0]) set_element(qkv, 20 * x.ld + x.q, NAN);
    x.qkv = both(b, qkv);
    attention_forward(b, &x, shape);
}

static void test_hard_scores(void **state) {
    BENCH
    for (int64_t bad = 0; bad < 2; bad++)
        for (int64_t dim = 8; dim <= 64; dim += 56) run_both(b, hard_case, (int64_t[]){bad, dim});
}

// ---- the group

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_of_bf16),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_hard_scores),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
