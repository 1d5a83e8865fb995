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

#include "data_order.h"
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
    // every index of every source comes once, in order, over two blocks
    uint64_t next[4] = {0};
    for (uint64_t p = 0; p < 2 * DEAL_BLOCK; p++) {
        int source;
        uint64_t index;
        deal_at(d, p, &source, &index);
        assert_int_equal(index, next[source]++);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(next[i], 2 * d->places[i]);
    deal_free(d);
}

// Of any first k positions every source has its share, give or take less than one; and counting agrees.
static void test_shares_are_within_one(void **state) {
    (void)state;
    static const double blends[][6] = {
        {1},       {1, 1},       {3, 1, 1},       {0.7, 0.1, 0.1, 0.1}, {5, 4, 3, 2, 1},
        {1, 0, 2}, {0, 0, 1, 0}, {8, 1, 1e-9, 1}, {1, 2, 3, 5, 7, 11},  {0.5, 0.3, 0.1, 0.06, 0.03, 0.01}};
    for (size_t k = 0; k < sizeof blends / sizeof *blends; k++) {
        deal *d;
        uint64_t have[6] = {0}, counted[6];
        no_error(deal_make(blends[k], 6, &d));
        for (uint64_t j = 0; j < DEAL_BLOCK + 5000; j++) {
            for (int i = 0; i < 6 && j % 997 == 0; i++) counted[i] = 0;
            if (j % 997 == 0) {
                deal_count(d, j, counted);
                assert_memory_equal(counted, have, sizeof have);
            }
            int source;
            uint64_t index;
            deal_at(d, j, &source, &index);
            assert_true(blends[k][source] > 0);
            have[source]++;
            for (int i = 0; i < 6; i++) {
                double off = (double)have[i] - (double)(j + 1) * d->places[i] / DEAL_BLOCK;
                if (!(off > -1 && off < 1))
                    fail_msg("blend %zu, source %d is %g off after %llu", k, i, off,
                             (unsigned long long)j + 1);
            }
        }
        deal_free(d);
    }
}

static void test_deal_refuses(void **state) {
    (void)state;
    deal *d;
    is_error(deal_make((double[]){0, 0}, 2, &d), ERR_CONFIG, "add up to 0");
    is_error(deal_make((double[]){1e308, 1e308}, 2, &d), ERR_CONFIG, "add up to inf");
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
static stream *open_two(uint64_t seed, bool shuffle) {
    source_config src[2] = {source_of(at("big-*.h5"), 3), source_of(at("small.h5"), 1)};
    stream *s;
    no_error(stream_open(src, 2, SEQ, seed, shuffle, &any, &s));
    return s;
}

static void test_windows(void **state) {
    (void)state;
    stream *s = open_two(1, false);
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
    stream *s = open_two(9, true);
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
    stream *s = open_two(5, true);
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
    stream *s = open_two(5, true);
    const int32_t *row;
    no_error(stream_start(s, 0, 0, 4, 4));
    for (uint64_t step = 0; step < 20; step++) {
        no_error(stream_next(s, &row));
        if (step % 5 == 0) usleep(2000); // the reader has time to go wrong
        for (uint64_t i = 0; i < 4; i++) check_row(s, step * 4 + i, row + i * (SEQ + 1));
    }
    stream_close(s); // with a step ready and unused
}

// ---- blends that change

static stream *open_changing(const uint64_t *at, int changes) {
    static const double weight[3][2] = {{1, 1}, {0, 1}, {1, 4}};
    stream *s = open_two(11, true);
    for (int i = 0; i < changes; i++) no_error(stream_change_blend(s, at[i], weight[i]));
    return s;
}

// Every source goes on where it was: over the changes each of its passes takes every window once, in the
// order it would have without them; between the changes shares are within one; and what lies before a change
// is as it was.
static void test_blend_changes(void **state) {
    (void)state;
    static const uint64_t at[3] = {37, 60, 131};
    static const double share[4][2] = {{0.75, 0.25}, {0.5, 0.5}, {0, 1}, {0.2, 0.8}};
    stream *s = open_changing(at, 3), *plain = open_two(11, true);
    uint64_t turns[2] = {0}, since[2] = {0}, begin = 0;
    uint64_t order[2][400];
    for (uint64_t i = 0, left[2] = {400, 400}; left[0] || left[1]; i++) { // without changes
        sample_place p;
        no_error(stream_locate(plain, i, &p));
        if (left[p.source]) order[p.source][400 - left[p.source]--] = p.pass * 55 + p.window;
    }
    for (uint64_t i = 0, k = 0; i < 400; i++) {
        sample_place p, q;
        if (k < 3 && i == at[k]) {
            begin = at[k++];
            since[0] = since[1] = 0;
        }
        no_error(stream_locate(s, i, &p));
        no_error(stream_locate(plain, i, &q));
        if (i < 37) assert_true(p.source == q.source && p.pass == q.pass && p.window == q.window);
        assert_int_equal(p.pass * 55 + p.window, order[p.source][turns[p.source]++]);
        since[p.source]++;
        double off = (double)since[0] - share[k][0] * (double)(i + 1 - begin);
        if (!(off > -1 && off < 1)) fail_msg("sample %llu: %g off", (unsigned long long)i, off);
    }
    assert_true(turns[0] > 55 && turns[1] > 100); // over the ends of passes
    stream_close(s);
    stream_close(plain);
}

// Entering anywhere, in any cut over ranks, gives the same samples, also across changes within a step.
static void test_changes_on_every_mesh(void **state) {
    (void)state;
    static const uint64_t at[3] = {30, 31, 55};
    stream *s = open_changing(at, 3);
    for (int ranks = 1; ranks <= 4; ranks *= 2)
        for (int rank = 0; rank < ranks; rank++)
            for (uint64_t from = 24; from < 40; from += 5) {
                const int32_t *row;
                int rows = 12 / ranks;
                no_error(stream_start(s, from, rank * rows, rows, 12));
                for (uint64_t step = 0; step < 4; step++) {
                    no_error(stream_next(s, &row));
                    for (int i = 0; i < rows; i++)
                        check_row(s, from + step * 12 + (uint64_t)(rank * rows + i), row + i * (SEQ + 1));
                }
            }
    stream_close(s);
}

static void test_bad_changes(void **state) {
    (void)state;
    stream *s = open_two(1, true);
    is_error(stream_change_blend(s, 0, (double[]){1, 1}), ERR_CONFIG, "changes at sample 0");
    no_error(stream_change_blend(s, 70000, (double[]){1, 1}));
    is_error(stream_change_blend(s, 70000, (double[]){1, 1}), ERR_CONFIG,
             "expected behind its last change at 70000");
    is_error(stream_change_blend(s, 70001, (double[]){0, 0}), ERR_CONFIG, "blend from sample 70001");
    is_error(stream_change_blend(s, 70001, (double[]){1, -1}), ERR_CONFIG,
             "source 1 of the blend has weight -1");
    no_error(stream_change_blend(s, 70001, (double[]){0, 1}));
    sample_place p;
    for (uint64_t i = 70001; i < 70010; i++) {
        no_error(stream_locate(s, i, &p));
        assert_int_equal(p.source, 1);
    }
    stream_close(s);
}

static config config_of(source_config *src, int n, blend_config *blend, int n_blend) {
    config c = {.run.seed = 3};
    c.data.seq_len = SEQ;
    c.data.shuffle = true;
    c.data.train = src;
    c.data.n_train = n;
    c.data.blend = blend;
    c.data.n_blend = n_blend;
    return c;
}

static char *order_of(const config *c) {
    stream *s;
    no_error(open_blend(c, &any, &s));
    char *text = data_order(c, s);
    assert_non_null(text);
    stream_close(s);
    return text;
}

// What is past must stay; what is to come may change, and so may sources that had no share yet.
static void test_only_the_past_is_fixed(void **state) {
    (void)state;
    source_config src[2] = {source_of(at("big-*.h5"), 3), source_of(at("small.h5"), 1)};
    source_config more[3] = {src[0], src[1], source_of(at("big-1.h5"), 0)};
    blend_config one[] = {{100, (double[]){1, 2}, 2}}, other[] = {{100, (double[]){1, 3}, 2}};
    blend_config earlier[] = {{99, (double[]){1, 2}, 2}}, two[] = {one[0], {200, (double[]){1, 1}, 2}};
    blend_config third[] = {{100, (double[]){1, 2, 0}, 3}, {300, (double[]){1, 2, 1}, 3}};
    config before = config_of(src, 2, one, 1);
    const struct {
        config now;
        uint64_t first_different; // position at which it is
    } cases[] = {{before, UINT64_MAX},
                 {config_of(src, 2, NULL, 0), 100},
                 {config_of(src, 2, other, 1), 100},
                 {config_of(src, 2, earlier, 1), 99},
                 {config_of(src, 2, two, 2), 200},
                 {config_of(more, 3, third, 2), 300}};
    char *was = order_of(&before);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *now = order_of(&cases[i].now);
        for (uint64_t p = 0; p < 400; p++)
            if (same_past(was, now, p) != (p <= cases[i].first_different))
                fail_msg("case %zu, position %llu:\n%s\n%s", i, (unsigned long long)p, was, now);
        free(now);
    }
    config seed = before;
    seed.run.seed = 4;
    char *now = order_of(&seed);
    assert_false(same_past(was, now, 0));
    free(now), free(was);
}

static void test_seeds_differ(void **state) {
    (void)state;
    stream *a = open_two(1, true), *b = open_two(2, true);
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
        cmocka_unit_test(test_shares_are_within_one),
        cmocka_unit_test(test_deal_refuses),
        cmocka_unit_test(test_golden_order),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_every_pass_takes_every_window_once),
        cmocka_unit_test(test_order_is_the_same_on_every_mesh),
        cmocka_unit_test(test_rows_stay_until_the_next_call),
        cmocka_unit_test(test_blend_changes),
        cmocka_unit_test(test_changes_on_every_mesh),
        cmocka_unit_test(test_bad_changes),
        cmocka_unit_test(test_only_the_past_is_fixed),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_reader_errors_arrive),
        cmocka_unit_test(test_mismatches),
        cmocka_unit_test(test_short_file_among_others),
        cmocka_unit_test(test_valid_samples),
    };
    return cmocka_run_group_tests_name("stream", tests, set_up, tear_down);
}
