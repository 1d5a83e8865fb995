// Tokenizers against ids from another implementation, and against damaged model files.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "fsutil.h"
#include "sentencepiece_shim.h"
#include "tokenizer.h"

#define STORIES "../shared/data/stories260k"
#define MISTRAL "../shared/data/mistral-tokenizer"

static char dir[] = "/tmp/solar-tokenizer-XXXXXX";

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

static tokenizer *open_real(const char *path) {
    tokenizer *t;
    if (!path_exists(path)) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    no_error(tokenizer_open(path, &t));
    return t;
}

// ---- against Transformers' LlamaTokenizer (legacy, sentencepiece 0.2), run on the same texts

typedef struct known {
    const char *text;
    size_t bytes;
    int count;
    int32_t id[24];
} known;

#define TEXT(s) s, sizeof(s) - 1

static void check_known(const tokenizer *t, const known *k, int n) {
    for (int i = 0; i < n; i++) {
        ids v = {0};
        no_error(tokenizer_encode(t, k[i].text, k[i].bytes, &v));
        assert_int_equal(v.count, k[i].count);
        for (int j = 0; j < k[i].count; j++) assert_int_equal(v.id[j], k[i].id[j]);
        ids_free(&v);
    }
}

static void test_stories_ids(void **state) {
    (void)state;
    static const known k[] = {
        {TEXT("Once upon a time, there was a little girl."),
         13,
         {403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 426}},
        {TEXT("  two  spaces\n\tand tabs 1234"), 21, {259, 424, 414, 262, 427, 412, 331, 419, 13,  12, 412,
                                                      264, 259, 412, 430, 419, 410, 475, 479, 472, 484}},
        {TEXT("caf\u00e9 \u65e5\u672c \U0001F600"),
         16,
         {280, 412, 431, 485, 410, 233, 154, 168, 233, 159, 175, 410, 243, 162, 155, 131}},
        {TEXT("a\0b"), 3, {261, 3, 430}},
        {TEXT(""), 0, {0}},
    };
    tokenizer *t = open_real(STORIES);
    assert_int_equal(tokenizer_vocab(t), 512);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_string_equal(tokenizer_name(t), "tokenizer.model");
    check_known(t, k, 5);
    tokenizer_close(t);
}

static void test_mistral_ids(void **state) {
    (void)state;
    static const known k[] = {
        {TEXT("Once upon a time, there was a little girl."),
         11,
         {5713, 3714, 264, 727, 28725, 736, 403, 264, 1628, 2746, 28723}},
        {TEXT("  two  spaces\n\tand tabs 1234"),
         14,
         {259, 989, 28705, 10599, 13, 12, 391, 261, 4737, 28705, 28740, 28750, 28770, 28781}},
        {TEXT("caf\u00e9 \u65e5\u672c \U0001F600"), 6, {28345, 28705, 29142, 29119, 28705, 30575}},
        {TEXT("a\0b"), 3, {264, 3, 28726}},
        {TEXT(""), 0, {0}},
    };
    tokenizer *t = open_real(MISTRAL "/tokenizer.model");
    assert_int_equal(tokenizer_vocab(t), 32000);
    check_known(t, k, 5);
    char sha[65];
    no_error(sha256_file(MISTRAL "/tokenizer.model", sha));
    assert_string_equal(tokenizer_sha256(t), sha);
    tokenizer_close(t);
}

// Every token of 787 stories, by SHA-256 of the ids as little-endian int32.
static void check_corpus(const char *model, size_t tokens, const char *want) {
    tokenizer *t = open_real(model);
    FILE *f = fopen("../shared/data/tinystories.jsonl", "r");
    if (!f) skip();
    char *line = NULL, sha[65];
    size_t room = 0;
    ids v = {0};
    while (getline(&line, &room, f) > 0) {
        json_t *doc = json_loads(line, 0, NULL);
        const json_t *text = json_object_get(doc, "text");
        no_error(tokenizer_encode(t, json_string_value(text), json_string_length(text), &v));
        json_decref(doc);
    }
    fclose(f);
    free(line);
    sha256_bytes(v.id, v.count * sizeof *v.id, sha);
    assert_int_equal(v.count, tokens);
    assert_string_equal(sha, want);
    ids_free(&v);
    tokenizer_close(t);
}

static void test_corpus_ids(void **state) {
    (void)state;
    check_corpus(STORIES, 335168, "0bf9c8a6e2de72f60f9dfd74c45b8be30117d7119ff45702568c594649ee9ed3");
    check_corpus(MISTRAL, 168783, "42e8f6af20914a3145ed4fcfed6e0cc619521b7b71f80474e5d26eca394c9a79");
}

// ---- bytes

static void test_bytes(void **state) {
    (void)state;
    tokenizer *t;
    ids v = {0};
    char *text;
    no_error(tokenizer_open("bytes", &t));
    assert_int_equal(tokenizer_vocab(t), 258);
    assert_int_equal(tokenizer_bos(t), 256);
    assert_int_equal(tokenizer_eos(t), 257);
    assert_string_equal(tokenizer_name(t), "bytes");
    assert_string_equal(tokenizer_sha256(t), "");
    no_error(tokenizer_encode(t, "a\0\xff", 3, &v));
    no_error(tokenizer_encode(t, "more", 4, &v)); // appends
    assert_int_equal(v.count, 7);
    assert_int_equal(v.id[1], 0);
    assert_int_equal(v.id[2], 255);
    no_error(tokenizer_decode(t, (int32_t[]){256, 'h', 'i', 257}, 4, &text));
    assert_string_equal(text, "hi");
    free(text);
    is_error(tokenizer_decode(t, (int32_t[]){'h', 258}, 2, &text), ERR_INPUT, "token 1 is 258");
    is_error(tokenizer_decode(t, (int32_t[]){-1}, 1, &text), ERR_INPUT, "token 0 is -1");
    ids_free(&v);
    tokenizer_close(t);
}

// ---- training

static const char *write_text(const char *name) {
    static const char *const word[] = {"the", "king",  "of",    "castle",    "river",
                                       "and", "stone", "under", "caf\u00e9", "1984"};
    FILE *f = fopen(at(name), "w");
    uint32_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        seed = seed * 1664525 + 1013904223;
        fprintf(f, "%s%c", word[(seed >> 20) % 10], i % 9 == 8 ? '\n' : ' ');
    }
    fclose(f);
    return at(name);
}

static void test_train(void **state) {
    (void)state;
    tokenizer *t;
    ids v = {0};
    char *text, first[65];
    no_error(tokenizer_train(write_text("train.txt"), at("small.model"), 300));
    no_error(tokenizer_open(at("small.model"), &t));
    assert_int_equal(tokenizer_vocab(t), 300);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_string_equal(tokenizer_name(t), "small.model");
    static const char sample[] = "the  king\n\u65e5 under 19\tstones\u0300";
    no_error(tokenizer_encode(t, sample, strlen(sample), &v));
    for (size_t i = 0; i < v.count; i++) assert_true(v.id[i] > 2 && v.id[i] < 300); // bytes, never unknown
    no_error(tokenizer_decode(t, v.id, v.count, &text));
    assert_string_equal(text, sample);
    free(text);
    no_error(tokenizer_decode(t, (int32_t[]){1, 2}, 2, &text)); // control ids are silent
    assert_string_equal(text, "");
    free(text);
    is_error(tokenizer_decode(t, (int32_t[]){300}, 1, &text), ERR_INPUT, "outside the vocabulary");
    snprintf(first, sizeof first, "%s", tokenizer_sha256(t));
    ids_free(&v);
    tokenizer_close(t);
    no_error(
        tokenizer_train(write_text("other-name.txt"), at("again.model"), 300)); // equal text, equal model
    no_error(tokenizer_open(at("again.model"), &t));
    assert_string_equal(tokenizer_sha256(t), first);
    tokenizer_close(t);
}

static void test_train_refuses(void **state) {
    (void)state;
    is_error(tokenizer_train(write_text("t.txt"), at("x.model"), 100), ERR_INPUT, "vocabulary of 100");
    is_error(tokenizer_train(at("t.txt"), at("x.model"), 500000), ERR_INPUT, "vocabulary of 500000");
    is_error(tokenizer_train(at("missing.txt"), at("x.model"), 300), ERR_INPUT, "vocabulary of 300");
    no_error(write_file_atomic(at("none.txt"), "", 0));
    is_error(tokenizer_train(at("none.txt"), at("x.model"), 300), ERR_INPUT, "vocabulary of 300");
    assert_false(path_exists(at("x.model")));
}

// Long text is encoded in parts; the ids must be those of the whole.
static void check_parts(const char *model, bool splits) {
    static const char *const word[] = {"the",    " king", "  of",     "castle.", "\n",
                                       "River ", "1984",  "\u65e5 x", "\t",      "\xcc\x81"};
    sp_model *sp;
    tokenizer *t;
    char *proto, why[WHY_BYTES], *text = malloc(100000);
    size_t bytes, n = 0, count;
    uint32_t seed = 7;
    ids v = {0};
    int32_t *whole;
    for (int i = 0; n < 90000; i++) {
        seed = seed * 1664525 + 1013904223;
        n += (size_t)sprintf(text + n, "%s%s", word[(seed >> 20) % 10], i % 3 ? " " : "");
    }
    no_error(read_file(model, 1 << 24, &proto, &bytes));
    assert_true(sp_open(proto, bytes, &sp, why));
    assert_int_equal(sp_splits_at_spaces(sp), splits);
    assert_true(sp_encode(sp, text, n, &whole, &count, why));
    no_error(tokenizer_open(model, &t));
    no_error(tokenizer_encode(t, text, n, &v));
    assert_int_equal(v.count, count);
    assert_memory_equal(v.id, whole, count * sizeof *whole);
    ids_free(&v);
    tokenizer_close(t);
    sp_close(sp);
    free(whole);
    free(proto);
    free(text);
}

static void test_parts(void **state) {
    (void)state;
    no_error(tokenizer_train(write_text("p.txt"), at("parts.model"), 320));
    check_parts(at("parts.model"), true);
    if (path_exists(STORIES)) check_parts(STORIES "/tokenizer.model", true);
    if (path_exists(MISTRAL)) check_parts(MISTRAL "/tokenizer.model", true);
}

// ---- paths and damage

static void test_paths(void **state) {
    (void)state;
    tokenizer *t;
    is_error(tokenizer_open(at("nowhere"), &t), ERR_INPUT, "no such tokenizer");
    is_error(tokenizer_open(dir, &t), ERR_INPUT, "holds no tokenizer.model");
    no_error(make_dirs(at("json")));
    no_error(write_file_atomic(at("json/tokenizer.json"), "{}", 2));
    is_error(tokenizer_open(at("json"), &t), ERR_INPUT, "only a tokenizer.json, which is not supported");
    no_error(write_file_atomic(at("empty.model"), "", 0));
    is_error(tokenizer_open(at("empty.model"), &t), ERR_INPUT, "is empty");
    no_error(write_file_atomic(at("text.model"), "this is no protocol buffer", 26));
    is_error(tokenizer_open(at("text.model"), &t), ERR_INPUT, "not a SentencePiece model");
}

// Without the fsync of write_file_atomic: it would be most of the time of the damage tests.
static void put(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "w");
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

// Opens and uses a damaged model. Whatever it answers, it answers.
static void use_damaged(const char *data, size_t bytes) {
    tokenizer *t;
    ids v = {0};
    char *text = NULL;
    put(at("damaged.model"), data, bytes);
    err *e = tokenizer_open(at("damaged.model"), &t);
    if (e) {
        assert_int_equal(err_get_code(e), ERR_INPUT);
        err_free(e);
        return;
    }
    static const char sample[] = "the king  of caf\u00e9 \u65e5";
    e = tokenizer_encode(t, sample, sizeof sample - 1, &v);
    if (!e) e = tokenizer_decode(t, v.id, v.count, &text);
    err_free(e);
    free(text);
    ids_free(&v);
    tokenizer_close(t);
}

static void test_damage(void **state) {
    (void)state;
    char *data;
    size_t bytes;
    no_error(tokenizer_train(write_text("d.txt"), at("whole.model"), 300));
    no_error(read_file(at("whole.model"), 1 << 24, &data, &bytes));
    for (size_t i = 0; i < 300; i++) {
        size_t place = i * 2654435761u % bytes;
        use_damaged(data, place);
        data[place] ^= (char)(1 << i % 8);
        use_damaged(data, bytes);
        data[place] ^= (char)(1 << i % 8);
    }
    free(data);
}

static int set_up(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    err_free(remove_tree(dir));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories_ids), cmocka_unit_test(test_mistral_ids),
        cmocka_unit_test(test_corpus_ids),  cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_train),       cmocka_unit_test(test_train_refuses),
        cmocka_unit_test(test_parts),       cmocka_unit_test(test_paths),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, set_up, tear_down);
}
