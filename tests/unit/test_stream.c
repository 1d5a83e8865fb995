// The order of samples depends on (seed, position) alone, and every window is used as often as it should.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fsutil.h"
#include "stream.h"
#include "stream_order.h"

static char dir[] = "/tmp/solar-stream-XXXXXX";
static const stream_check any = {.vocab = 1 << 30};
enum { SEQ = 8 };

static const char *at(const char *name) {
    static char path[8][200];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, 200, "%s/%s", dir, name);
    return p;
}

static void no_error(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void is_error(err *e, err_code code, const char *words) {
    if (!e) fail_msg("no error, expected one about: %s", words);
    if (err_get_code(e) != code || !strstr(err_text(e), words))
        fail_msg("expected %d about \"%s\", got %d: %s", code, words, err_get_code(e), err_text(e));
    err_free(e);
}

// A file whose token i is base + i: a sample says where it comes from.
static void write_file(const char *name, int32_t base, uint64_t tokens, int64_t vocab, const char *sha) {
    tokens_writer *w;
    tokens_info info = {.vocab = vocab, .eos = -1, .tokenizer = "t", .source = "s"};
    snprintf(info.sha256, sizeof info.sha256, "%s", sha);
    no_error(tokens_create(at(name), &info, 0, &w));
    int32_t *id = malloc((tokens + 1) * sizeof *id);
    for (uint64_t i = 0; i < tokens; i++) id[i] = base + (int32_t)i;
    no_error(tokens_append(w, id, tokens));
    no_error(tokens_writer_close(w, NULL, NULL));
    free(id);
}

static source_config source_of(const char *files, double weight) {
    return (source_config){.name = (char *)"s", .files = (char *)(uintptr_t)files, .weight = weight};
}

// ---- arithmetic

static void check_bijection(uint64_t n, uint64_t seed) {
    char *seen = calloc(n, 1);
    permutation p = permutation_make(n, seed, 3, 5);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t x = permutation_at(&p, i);
        assert_true(x < n);
        assert_int_equal(seen[x]++, 0);
    }
    free(seen);
}

static void test_permutation_is_a_bijection(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 300; n++) check_bijection(n, n);
    static const uint64_t more[] = {511, 512, 513, 4095, 4097, 65535, 65536, 65537, 100003, 1000000};
    for (int i = 0; i < 10; i++) check_bijection(more[i], 7);
    permutation p = permutation_make((uint64_t)1 << 61, 1, 0, 0); // far beyond any corpus
    for (uint64_t i = 0; i < 1000; i++) assert_true(permutation_at(&p, i << 50) < (uint64_t)1 << 61);
}

// Neighbours must not stay neighbours, and seeds, sources and passes must differ from each other.
static void test_permutation_mixes(void **state) {
    (void)state;
    enum { N = 10000 };
    permutation a = permutation_make(N, 1, 0, 0),
                others[3] = {permutation_make(N, 2, 0, 0), permutation_make(N, 1, 1, 0),
                             permutation_make(N, 1, 0, 1)};
    double sum = 0;
    int same[3] = {0}, next = 0;
    for (uint64_t i = 0; i < N; i++) {
        uint64_t x = permutation_at(&a, i);
        sum += (double)i * (double)x;
        for (int k = 0; k < 3; k++) same[k] += permutation_at(&others[k], i) == x;
        if (i + 1 < N) next += permutation_at(&a, i + 1) == x + 1;
    }
    double mean = (N - 1) / 2.0, variance = ((double)N * N - 1) / 12;
    double correlation = (sum / N - mean * mean) / variance;
    assert_true(correlation < 0.05 && correlation > -0.05); // 5 sigma
    for (int k = 0; k < 3; k++) assert_true(same[k] < 10);  // 1 is expected
    assert_true(next < 10);
}

static void test_deal_is_exact(void **state) {
    (void)state;
    static const double weight[4] = {0.9, 0.08, 0.02, 1e-12};
    deal *d;
    no_error(deal_make(weight, 4, &d));
    assert_int_equal(d->places[0] + d->places[1] + d->places[2] + d->places[3], DEAL_BLOCK);
    assert_int_equal(d->places[3], 1); // at least one
    for (int i = 0; i < 3; i++) assert_true(abs((int)d->places[i] - (int)(weight[i] * DEAL_BLOCK)) <= 1);
    // every index of every source comes once, in order, over two blocks; shares hold inside a block too
    uint64_t next[4] = {0};
    for (uint64_t p = 0; p < 2 * DEAL_BLOCK; p++) {
        int source;
        uint64_t index;
        deal_at(d, p, &source, &index);
        assert_int_equal(index, next[source]++);
        if (p % 1000 == 999 && p < DEAL_BLOCK)
            assert_true(llabs((long long)next[0] - (long long)(0.9 * (double)(p + 1))) <= 4);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(next[i], 2 * d->places[i]);
    deal_free(d);
}

static void test_deal_refuses(void **state) {
    (void)state;
    deal *d;
    is_error(deal_make((double[]){1, 0}, 2, &d), ERR_CONFIG, "source 1 of the blend has weight 0");
    is_error(deal_make((double[]){-1}, 1, &d), ERR_CONFIG, "weight -1");
    is_error(deal_make((double[]){1.0 / 0.0}, 1, &d), ERR_CONFIG, "weight inf");
    is_error(deal_make((double[]){0.0 / 0.0}, 1, &d), ERR_CONFIG, "finite number");
    is_error(deal_make((double[]){1}, 0, &d), ERR_CONFIG, "0 sources");
    is_error(deal_make((double[]){1}, 5000, &d), ERR_CONFIG, "5000 sources");
}

// Pinned: a change of the order would make a resumed run see other data than it would have.
static void test_golden_order(void **state) {
    (void)state;
    static const uint64_t window[12] = {293, 621, 308, 711, 940, 863, 693, 82, 768, 498, 747, 556};
    static const int source[16] = {0, 1, 0, 2, 0, 0, 1, 0, 2, 0, 0, 1, 0, 2, 0, 0};
    permutation p = permutation_make(1000, 42, 1, 2);
    for (uint64_t i = 0; i < 12; i++) assert_int_equal(permutation_at(&p, i), window[i]);
    deal *d;
    no_error(deal_make((double[]){3, 1, 1}, 3, &d));
    for (uint64_t i = 0; i < 16; i++) {
        int s;
        uint64_t index;
        deal_at(d, i, &s, &index);
        assert_int_equal(s, source[i]);
    }
    deal_free(d);
}

// ---- streams over files

enum { BIG = 100000 };

// Two files of one source (30 and 25 windows) and a small second source (5 windows).
static stream *open_blend(uint64_t seed, bool shuffle) {
    source_config src[2] = {source_of(at("big-*.h5"), 3), source_of(at("small.h5"), 1)};
    stream *s;
    no_error(stream_open(src, 2, SEQ, seed, shuffle, &any, &s));
    return s;
}

static void test_windows(void **state) {
    (void)state;
    stream *s = open_blend(1, false);
    assert_int_equal(stream_windows(s, 0), 55);
    assert_int_equal(stream_windows(s, 1), 5);
    assert_int_equal(stream_source_tokens(s, 0), 241 + 207);
    sample_place p;
    uint64_t seen = 0;
    for (uint64_t i = 0; seen < 55; i++) { // unshuffled: in the order of the files' names
        no_error(stream_locate(s, i, &p));
        if (p.source != 0) continue;
        assert_int_equal(p.window, seen);
        assert_non_null(strstr(p.file, seen < 30 ? "big-1.h5" : "big-2.h5"));
        assert_int_equal(p.token, (seen < 30 ? seen : seen - 30) * SEQ);
        seen++;
    }
    stream_close(s);
}

static void test_every_pass_takes_every_window_once(void **state) {
    (void)state;
    stream *s = open_blend(9, true);
    int seen[2][5][55] = {0};
    uint64_t order[2][55], n[2] = {0};
    for (uint64_t i = 0; i < 55 * 4; i++) {
        sample_place p;
        no_error(stream_locate(s, i, &p));
        if (p.pass < 5) assert_int_equal(seen[p.source][p.pass][p.window]++, 0);
        if (p.source == 0 && p.pass < 2 && n[p.pass] < 55) order[p.pass][n[p.pass]++] = p.window;
    }
    for (int w = 0; w < 55; w++) assert_int_equal(seen[0][0][w] + seen[0][1][w], 2);
    for (int w = 0; w < 5; w++) assert_int_equal(seen[1][4][w], 1); // 11 times over by now
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    stream_close(s);
}

static void check_row(const stream *s, uint64_t position, const int32_t *row) {
    sample_place p;
    no_error(stream_locate(s, position, &p));
    int32_t base = strstr(p.file, "small") ? 2 * BIG : strstr(p.file, "big-2") ? BIG : 0;
    for (int i = 0; i <= SEQ; i++) assert_int_equal(row[i], base + (int32_t)p.token + i);
}

// However the global batch is cut over ranks and wherever it is entered, position i is the same sample.
static void test_order_is_the_same_on_every_mesh(void **state) {
    (void)state;
    enum { BATCH = 12, STEPS = 9 };
    static const int ranks[] = {1, 2, 3, 4, 6, 12};
    stream *s = open_blend(5, true);
    for (int k = 0; k < 6; k++) {
        int rows = BATCH / ranks[k];
        for (int rank = 0; rank < ranks[k]; rank++) {
            uint64_t position = 7 * BATCH + (uint64_t)k; // anywhere
            no_error(stream_start(s, position, rank * rows, rows, BATCH));
            for (int step = 0; step < STEPS; step++, position += BATCH) {
                const int32_t *row;
                no_error(stream_next(s, &row));
                for (int i = 0; i < rows; i++)
                    check_row(s, position + (uint64_t)(rank * rows + i), row + i * (SEQ + 1));
            }
        }
    }
    stream_close(s);
}

static void test_rows_stay_until_the_next_call(void **state) {
    (void)state;
    stream *s = open_blend(5, true);
    const int32_t *row;
    no_error(stream_start(s, 0, 0, 4, 4));
    for (uint64_t step = 0; step < 20; step++) {
        no_error(stream_next(s, &row));
        if (step % 5 == 0) usleep(2000); // the reader has time to go wrong
        for (uint64_t i = 0; i < 4; i++) check_row(s, step * 4 + i, row + i * (SEQ + 1));
    }
    stream_close(s); // with a step ready and unused
}

static void test_seeds_differ(void **state) {
    (void)state;
    stream *a = open_blend(1, true), *b = open_blend(2, true);
    int same = 0;
    for (uint64_t i = 0; i < 200; i++) {
        sample_place p, q;
        no_error(stream_locate(a, i, &p));
        no_error(stream_locate(b, i, &q));
        assert_int_equal(p.source, q.source); // the blend itself is fixed
        same += p.window == q.window && p.source == 0;
    }
    assert_true(same < 20);
    stream_close(a);
    stream_close(b);
}

static void test_reader_errors_arrive(void **state) {
    (void)state;
    // ids beyond the vocabulary that the file names: written by raising it, then damaging the file
    write_file("damaged.h5", 60, 400, 512, "");
    char *data;
    size_t bytes;
    no_error(read_file(at("damaged.h5"), 1 << 26, &data, &bytes));
    for (size_t i = 0; i + 4 < bytes; i++)
        if (memcmp(data + i, "\x58\x01\x59\x01", 4) == 0) data[i + 1] = 0x7f; // 344, 345
    no_error(write_file_atomic(at("damaged.h5"), data, bytes));
    free(data);
    source_config src = source_of(at("damaged.h5"), 1);
    stream *s;
    const int32_t *row;
    err *e = NULL;
    no_error(stream_open(&src, 1, SEQ, 1, false, &any, &s));
    is_error(stream_next(s, &row), ERR_RUNTIME, "was not started");
    no_error(stream_start(s, 0, 0, 5, 5));
    int steps = 0;
    while (!(e = stream_next(s, &row))) steps++;
    assert_int_equal(steps, 7);
    assert_null(row);
    is_error(e, ERR_INPUT, "training sample 35");
    is_error(stream_next(s, &row), ERR_RUNTIME, "failed before");
    no_error(stream_start(s, 0, 0, 5, 5)); // and it can be moved back to good ground
    no_error(stream_next(s, &row));
    no_error(stream_start(s, 35, 0, 5, 5));
    usleep(1000);
    stream_close(s); // an error nobody asked for is freed
}

static err *open_one(const char *files, int64_t seq_len, stream_check check) {
    source_config src = source_of(files, 1);
    stream *s;
    err *e = stream_open(&src, 1, seq_len, 1, true, &check, &s);
    stream_close(s);
    return e;
}

static void test_mismatches(void **state) {
    (void)state;
    char a[65] = "", b[65] = "";
    memset(a, 'a', 64);
    memset(b, 'b', 64);
    write_file("tok-a.h5", 0, 100, 512, a);
    write_file("tok-b.h5", 0, 100, 512, b);
    write_file("short.h5", 0, 8, 512, a);
    no_error(open_one(at("tok-a.h5"), SEQ, (stream_check){.vocab = 512, .tokenizer_sha256 = a}));
    no_error(open_one(at("tok-a.h5"), SEQ, (stream_check){.vocab = 600}));
    no_error(open_one(at("tok-a.h5"), SEQ, (stream_check){.vocab = 600, .tokenizer_sha256 = ""}));
    is_error(open_one(at("tok-a.h5"), SEQ, (stream_check){.vocab = 512, .tokenizer_sha256 = b}), ERR_INPUT,
             "data.allow_tokenizer_mismatch");
    no_error(open_one(at("tok-a.h5"), SEQ,
                      (stream_check){.vocab = 512, .tokenizer_sha256 = b, .allow_mismatch = true}));
    is_error(open_one(at("tok-a.h5"), SEQ,
                      (stream_check){.vocab = 511, .tokenizer_sha256 = a, .allow_mismatch = true}),
             ERR_INPUT, "vocabulary of 512 ids, the model has 511");
    is_error(open_one(at("tok-*.h5"), SEQ, (stream_check){.vocab = 512}), ERR_INPUT, "tokenize them alike");
    is_error(open_one(at("short.h5"), SEQ, any), ERR_INPUT, "too few for one sample");
    is_error(open_one(at("nothing-*.h5"), SEQ, any), ERR_INPUT, "no file is named");
    is_error(open_one(at("tok-a.h5"), 0, any), ERR_CONFIG, "seq_len is 0");
}

static void test_short_file_among_others(void **state) {
    (void)state;
    write_file("mix-1.h5", 0, 3, 512, "");
    write_file("mix-2.h5", 100, 2 * SEQ + 1, 512, "");
    write_file("mix-3.h5", 200, 0, 512, "");
    write_file("mix-4.h5", 300, SEQ + 1, 512, "");
    source_config src = source_of(at("mix-*.h5"), 1);
    valid_set *v;
    int32_t row[3][SEQ + 1];
    no_error(valid_open(&src, SEQ, &any, &v));
    assert_int_equal(valid_samples(v), 3);
    no_error(valid_read(v, 0, 3, row[0]));
    assert_int_equal(row[0][0], 100);
    assert_int_equal(row[1][0], 100 + SEQ);
    assert_int_equal(row[2][SEQ], 300 + SEQ);
    valid_close(v);
}

static void test_valid_samples(void **state) {
    (void)state;
    source_config src = source_of(at("big-*.h5"), 1);
    valid_set *v;
    int32_t row[11][SEQ + 1], again[SEQ + 1];
    src.samples = 11;
    no_error(valid_open(&src, SEQ, &any, &v));
    assert_int_equal(valid_samples(v), 11);
    no_error(valid_read(v, 0, 11, row[0]));
    for (int i = 0; i < 11; i++) { // every fifth of 55 windows
        int window = 5 * i;
        assert_int_equal(row[i][0], window < 30 ? window * SEQ : BIG + (window - 30) * SEQ);
        no_error(valid_read(v, i, 1, again));
        assert_memory_equal(again, row[i], sizeof again);
    }
    valid_close(v);
    src.samples = 56;
    is_error(valid_open(&src, SEQ, &any, &v), ERR_CONFIG, "has 55");
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(dir)) return -1;
    write_file("big-1.h5", 0, 30 * SEQ + 1, 1 << 20, "");
    write_file("big-2.h5", BIG, 25 * SEQ + 7, 1 << 20, "");
    write_file("small.h5", 2 * BIG, 5 * SEQ + 1, 1 << 20, "");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    err_free(remove_tree(dir));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation_is_a_bijection),
        cmocka_unit_test(test_permutation_mixes),
        cmocka_unit_test(test_deal_is_exact),
        cmocka_unit_test(test_deal_refuses),
        cmocka_unit_test(test_golden_order),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_every_pass_takes_every_window_once),
        cmocka_unit_test(test_order_is_the_same_on_every_mesh),
        cmocka_unit_test(test_rows_stay_until_the_next_call),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_reader_errors_arrive),
        cmocka_unit_test(test_mismatches),
        cmocka_unit_test(test_short_file_among_others),
        cmocka_unit_test(test_valid_samples),
    };
    return cmocka_run_group_tests_name("stream", tests, set_up, tear_down);
}
