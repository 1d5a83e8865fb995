// Where documents begin: marked in samples wherever the windows lie, and turned into targets, starts and
// positions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "document_index.h"
#include "fsutil.h"
#include "samples.h"
#include "stream.h"

static char dir[] = "/tmp/solar-documents-XXXXXX";
static char path[64];

enum { DOCUMENTS = 5000, MOST = 40, VOCAB = 1000 };
static uint64_t starts[DOCUMENTS + 1]; // and the end
static char *begins;                   // [tokens]

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static int32_t id_at(uint64_t i) { return (int32_t)(i * 7 % VOCAB); }

// Documents of 1 to 40 tokens; every tenth is one token.
static int set_up(void **state) {
    (void)state;
    tokens_writer *w;
    int32_t id[MOST];
    tokens_info info = {.vocab = VOCAB, .eos = -1, .tokenizer = "t", .source = "s"};
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/d.h5", dir);
    ok(tokens_create(path, &info, 3, &w));
    for (int d = 0; d < DOCUMENTS; d++) {
        int length = d % 10 == 3 ? 1 : 1 + (int)((unsigned)d * 2654435761u >> 8) % MOST;
        for (int i = 0; i < length; i++) id[i] = id_at(starts[d] + (uint64_t)i);
        ok(tokens_append(w, id, (uint64_t)length));
        starts[d + 1] = starts[d] + (uint64_t)length;
    }
    ok(tokens_writer_close(w, NULL, NULL));
    begins = calloc(starts[DOCUMENTS] + 1, 1);
    for (int d = 0; d < DOCUMENTS; d++) begins[starts[d]] = 1;
    return begins ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    free(begins);
    err_free(remove_tree(dir));
    return 0;
}

static void check_marks(const int32_t *id, uint64_t first, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        int32_t want = id_at(first + i);
        if (id[i] != (begins[first + i] ? ~want : want))
            fail_msg("token %llu: %d", (unsigned long long)(first + i), id[i]);
    }
}

static void windows_anywhere(void **state) {
    (void)state;
    tokens_file *f;
    document_index *x;
    uint64_t tokens = starts[DOCUMENTS], count = 97;
    int32_t *id = malloc(tokens * sizeof *id);
    ok(tokens_open(path, &f));
    ok(document_index_open(f, &x));
    for (uint64_t k = 0; k < 700; k++) { // jumping about, and to both ends
        uint64_t first = k * 1000003 % (tokens - count);
        if (k % 50 == 0) first = k % 100 ? 0 : tokens - count;
        ok(tokens_read(f, first, count, id));
        ok(document_index_mark(x, first, count, id));
        check_marks(id, first, count);
    }
    ok(tokens_read(f, 0, tokens, id));
    ok(document_index_mark(x, 0, tokens, id)); // over several blocks of starts
    check_marks(id, 0, tokens);
    document_index_close(x);
    document_index_close(NULL);
    tokens_close(f);
    free(id);
}

static void samples_are_marked(void **state) {
    (void)state;
    enum { SEQ = 50 };
    source_config src = {.name = (char *)"s", .files = path, .weight = 1, .samples = 20};
    const stream_check marked = {.vocab = VOCAB, .mark_documents = true}, plain = {.vocab = VOCAB};
    stream *s, *t;
    valid_set *v;
    const int32_t *row, *other;
    int32_t valid[SEQ + 1];
    ok(stream_open(&src, 1, SEQ, 5, true, &marked, &s));
    ok(stream_open(&src, 1, SEQ, 5, true, &plain, &t));
    ok(stream_start(s, 3, 0, 4, 4));
    ok(stream_start(t, 3, 0, 4, 4));
    for (uint64_t step = 0; step < 50; step++) {
        sample_place p;
        ok(stream_next(s, &row));
        ok(stream_next(t, &other));
        for (uint64_t i = 0; i < 4; i++) {
            ok(stream_locate(s, 3 + step * 4 + i, &p));
            check_marks(row + i * (SEQ + 1), p.token, SEQ + 1);
            for (uint64_t k = 0; k <= SEQ; k++)
                assert_int_equal(other[i * (SEQ + 1) + k], id_at(p.token + k));
        }
    }
    ok(valid_open(&src, SEQ, &marked, &v));
    ok(valid_read(v, 0, 1, valid));
    check_marks(valid, 0, SEQ + 1);
    valid_close(v);
    stream_close(s);
    stream_close(t);
}

static void rows_of_samples(void **state) {
    (void)state;
    enum { L = 6 };
    const int32_t sample[2][L + 1] = {{5, 6, ~7, 8, ~9, ~1, 2}, {~0, 1, 2, 3, 4, 5, ~6}};
    int32_t input[2 * L], target[2 * L], start[2 * L], position[2 * L];
    token_rows all = {input, target, start, position}, plain = {input, target, NULL, NULL};
    samples_split(&sample[0][0], 2, L, &all);
    assert_memory_equal(input, ((int32_t[]){5, 6, 7, 8, 9, 1, 0, 1, 2, 3, 4, 5}), sizeof input);
    assert_memory_equal(target, ((int32_t[]){6, -1, 8, -1, -1, 2, 1, 2, 3, 4, 5, -1}), sizeof target);
    assert_memory_equal(start, ((int32_t[]){0, 0, 2, 2, 4, 5, 0, 0, 0, 0, 0, 0}), sizeof start);
    assert_memory_equal(position, ((int32_t[]){0, 1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5}), sizeof position);
    assert_int_equal(samples_predicted(target, 2 * L), 8);
    samples_split(&sample[0][0], 2, L, &plain);
    assert_memory_equal(input, ((int32_t[]){5, 6, 7, 8, 9, 1, 0, 1, 2, 3, 4, 5}), sizeof input);
    assert_memory_equal(target, ((int32_t[]){6, 7, 8, 9, 1, 2, 1, 2, 3, 4, 5, 6}), sizeof target);
    assert_int_equal(samples_predicted(target, 2 * L), 2 * L);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_anywhere),
        cmocka_unit_test(samples_are_marked),
        cmocka_unit_test(rows_of_samples),
    };
    return cmocka_run_group_tests_name("documents", tests, set_up, tear_down);
}
