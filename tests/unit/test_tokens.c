// Token files: what is written comes back, and hostile files are errors that name what is wrong.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <hdf5.h>

#include "fsutil.h"
#include "tokens.h"

// HDF5 1.10 itself loses memory when it gives up on damaged metadata; handles of ours are counted below.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }

static char dir[] = "/tmp/solar-tokens-XXXXXX";

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

static tokens_info info_of(int64_t vocab) {
    tokens_info info = {.vocab = vocab, .eos = 1, .tokenizer = "some.model", .source = "here"};
    memset(info.sha256, 'a', 64);
    return info;
}

// Documents of 1, 2, 3 ... tokens, token i being i * 7 modulo the vocabulary.
static void write_sample(const char *path, int64_t vocab, int documents, int deflate) {
    tokens_writer *w;
    uint64_t total = 0, tokens, count;
    tokens_info info = info_of(vocab);
    no_error(tokens_create(path, &info, deflate, &w));
    int32_t *id = malloc((size_t)documents * sizeof *id);
    for (int d = 1; d <= documents; d++) {
        for (int i = 0; i < d; i++) id[i] = (int32_t)((total + (uint64_t)i) * 7 % (uint64_t)vocab);
        no_error(tokens_append(w, id, (uint64_t)d));
        total += (uint64_t)d;
    }
    free(id);
    assert_false(path_exists(path)); // nothing is there before it is whole
    no_error(tokens_writer_close(w, &tokens, &count));
    assert_int_equal(tokens, total);
    assert_int_equal(count, documents);
}

static void check_range(tokens_file *f, uint64_t first, uint64_t count) {
    int64_t vocab = tokens_get_info(f)->vocab;
    int32_t *id = malloc(count * sizeof *id);
    no_error(tokens_read(f, first, count, id));
    for (uint64_t i = 0; i < count; i++) assert_int_equal(id[i], (first + i) * 7 % (uint64_t)vocab);
    free(id);
}

static void round_trip(int64_t vocab, int width, int deflate) {
    const char *path = at("round.h5");
    enum { DOCUMENTS = 700 }; // 245,350 tokens: more than one chunk
    write_sample(path, vocab, DOCUMENTS, deflate);
    tokens_file *f;
    no_error(tokens_open(path, &f));
    const tokens_info *info = tokens_get_info(f);
    assert_int_equal(info->tokens, DOCUMENTS * (DOCUMENTS + 1) / 2);
    assert_int_equal(info->documents, DOCUMENTS);
    assert_int_equal(info->vocab, vocab);
    assert_int_equal(info->width, width);
    assert_int_equal(info->eos, 1);
    assert_string_equal(info->tokenizer, "some.model");
    assert_int_equal(strlen(info->sha256), 64);
    check_range(f, 0, info->tokens);
    check_range(f, 131000, 200); // over the edge of a chunk
    check_range(f, info->tokens - 1, 1);
    uint64_t start[DOCUMENTS];
    no_error(tokens_documents(f, 0, DOCUMENTS, start));
    for (uint64_t d = 0; d < DOCUMENTS; d++) assert_int_equal(start[d], d * (d + 1) / 2);
    int32_t id[4];
    is_error(tokens_read(f, info->tokens - 1, 2, id), ERR_INPUT, "were asked for");
    is_error(tokens_read(f, UINT64_MAX, 2, id), ERR_INPUT, "were asked for");
    is_error(tokens_documents(f, DOCUMENTS, 1, start), ERR_INPUT, "were asked for");
    tokens_close(f);
    unlink(path);
}

static void test_round_trip(void **state) {
    (void)state;
    round_trip(512, 2, 0);
    round_trip(65536, 2, 4);
    round_trip(65537, 4, 0);
    round_trip(200000, 4, 9);
}

static void test_equal_tokens_give_equal_files(void **state) {
    (void)state;
    char one[65], two[65];
    write_sample(at("one.h5"), 999, 300, 3);
    sleep(1); // a time of day in the file would show
    write_sample(at("two.h5"), 999, 300, 3);
    no_error(sha256_file(at("one.h5"), one));
    no_error(sha256_file(at("two.h5"), two));
    assert_string_equal(one, two);
}

static void test_writer_refuses(void **state) {
    (void)state;
    tokens_writer *w;
    tokens_info info = info_of(10);
    is_error(tokens_create(at("none/x.h5"), &info, 0, &w), ERR_SYSTEM, "cannot create");
    no_error(tokens_create(at("refuse.h5"), &info, 0, &w));
    is_error(tokens_append(w, (int32_t[]){1, 10}, 2), ERR_INPUT, "token id 10");
    is_error(tokens_append(w, (int32_t[]){-1}, 1), ERR_INPUT, "token id -1");
    tokens_writer_abort(w);
    assert_false(path_exists(at("refuse.h5")));
}

static ssize_t lost_handles; // HDF5 cannot close what it cannot write

// The disk is full at any point, also one where the library only keeps things for later.
static void test_no_room(void **state) {
    (void)state;
    enum { TOKENS = 400000, WHOLE = 1200000 }; // tokens are stored in whole chunks
    struct rlimit before, tight;
    int32_t *id = calloc(TOKENS, sizeof *id);
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t room = 0; room <= WHOLE + 100000; room += 50000) {
        tokens_writer *w;
        tokens_info info = info_of(10);
        tight = before;
        tight.rlim_cur = room;
        setrlimit(RLIMIT_FSIZE, &tight);
        err *e = tokens_create(at("full.h5"), &info, 0, &w);
        if (!e) {
            for (int i = 0; i < 8 && !e; i++) e = tokens_append(w, id, TOKENS / 8);
            if (e)
                tokens_writer_abort(w);
            else
                e = tokens_writer_close(w, NULL, NULL);
        }
        setrlimit(RLIMIT_FSIZE, &before);
        assert_true(e ? room < WHOLE : room >= 2 * TOKENS);
        assert_int_equal(path_exists(at("full.h5")), !e);
        if (e) is_error(e, ERR_SYSTEM, "full.h5");
    }
    signal(SIGXFSZ, SIG_DFL);
    free(id);
    unlink(at("full.h5"));
    lost_handles = H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL);
}

static void test_empty(void **state) {
    (void)state;
    write_sample(at("empty.h5"), 10, 0, 0);
    tokens_file *f;
    no_error(tokens_open(at("empty.h5"), &f));
    assert_int_equal(tokens_get_info(f)->tokens, 0);
    tokens_close(f);
}

// ---- hostile files: a good one is built, and one thing is done differently
typedef struct recipe {
    const char *words; // of the error
    hid_t token_type, document_type;
    int rank;
    const char *without; // the attribute or dataset left out
    int64_t version, vocab, eos;
    const char *sha256;
    bool real_vocab, compact;
    uint64_t start[2];
    uint16_t token;
} recipe;

static recipe good_recipe(const char *words) {
    return (recipe){.words = words,
                    .token_type = H5T_STD_U16LE,
                    .document_type = H5T_STD_U64LE,
                    .rank = 1,
                    .without = "",
                    .version = 1,
                    .vocab = 100,
                    .eos = 2,
                    .sha256 = "",
                    .start = {0, 5},
                    .token = 99};
}

static void put_int(hid_t file, const recipe *r, const char *name, int64_t value) {
    if (strcmp(r->without, name) == 0) return;
    hid_t space = H5Screate(H5S_SCALAR);
    bool real = r->real_vocab && strcmp(name, "vocab_size") == 0;
    hid_t a = H5Acreate2(file, name, real ? H5T_IEEE_F64LE : H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(a, H5T_NATIVE_INT64, &value);
    H5Aclose(a);
    H5Sclose(space);
}

static void put_text(hid_t file, const recipe *r, const char *name, const char *text) {
    if (strcmp(r->without, name) == 0) return;
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1); // fixed length, unlike our writer
    hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(a, type, text);
    H5Aclose(a);
    H5Tclose(type);
    H5Sclose(space);
}

static void put_set(hid_t file, const recipe *r, const char *name, hid_t stored, hid_t memory, hsize_t n,
                    const void *data) {
    if (strcmp(r->without, name) == 0) return;
    hsize_t size[2] = {r->rank == 2 ? n / 2 : n, 2};
    hid_t space = H5Screate_simple(r->rank, size, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    if (r->compact) H5Pset_layout(list, H5D_COMPACT);
    hid_t d = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (data) H5Dwrite(d, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    H5Dclose(d);
    H5Pclose(list);
    H5Sclose(space);
}

static void cook(const char *path, const recipe *r, bool with_data) {
    uint16_t token[10] = {1, 2, 3, 4, 5, 6, 7, r->token, 8, 9};
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    put_int(file, r, "format_version", r->version);
    put_int(file, r, "vocab_size", r->vocab);
    put_int(file, r, "eos_id", r->eos);
    put_text(file, r, "tokenizer", "bytes");
    put_text(file, r, "tokenizer_sha256", r->sha256);
    put_text(file, r, "source", "test");
    put_set(file, r, "tokens", r->token_type, H5T_NATIVE_UINT16, 10, with_data ? token : NULL);
    put_set(file, r, "documents", r->document_type, H5T_NATIVE_UINT64, 2, r->start);
    H5Fclose(file);
}

static void open_fails(const recipe *r) {
    tokens_file *f;
    cook(at("hostile.h5"), r, true);
    is_error(tokens_open(at("hostile.h5"), &f), ERR_INPUT, r->words);
    assert_null(f);
}

static void test_foreign_writer(void **state) {
    (void)state;
    recipe r = good_recipe("");
    tokens_file *f;
    int32_t id[10];
    uint64_t start[2];
    cook(at("foreign.h5"), &r, true); // contiguous, strings of fixed length
    no_error(tokens_open(at("foreign.h5"), &f));
    no_error(tokens_read(f, 0, 10, id));
    assert_int_equal(id[7], 99);
    no_error(tokens_documents(f, 0, 2, start));
    assert_int_equal(start[1], 5);
    tokens_close(f);
}

static void test_wrong_types(void **state) {
    (void)state;
    recipe r = good_recipe("not unsigned integers");
    r.token_type = H5T_IEEE_F32LE;
    open_fails(&r);
    r.token_type = H5T_STD_I32LE;
    open_fails(&r);
    r = good_recipe("expected uint32 or uint16");
    r.token_type = H5T_STD_U8LE;
    open_fails(&r);
    r = good_recipe("expected uint64");
    r.document_type = H5T_STD_U32LE;
    open_fails(&r);
    r = good_recipe("2 dimensions");
    r.rank = 2;
    open_fails(&r);
    r = good_recipe("stored neither in chunks");
    r.compact = true;
    open_fails(&r);
}

static void test_wrong_attributes(void **state) {
    (void)state;
    static const char *const names[] = {"format_version",   "vocab_size", "eos_id", "tokenizer",
                                        "tokenizer_sha256", "source",     "tokens", "documents"};
    for (int i = 0; i < 8; i++) {
        recipe r = good_recipe(names[i]);
        r.without = names[i];
        open_fails(&r);
    }
    recipe r = good_recipe("format_version is 2");
    r.version = 2;
    open_fails(&r);
    r = good_recipe("vocab_size is 0");
    r.vocab = 0;
    open_fails(&r);
    r = good_recipe("vocab_size is 1099511627776");
    r.vocab = (int64_t)1 << 40;
    open_fails(&r);
    r = good_recipe("eos_id is 100");
    r.eos = 100;
    open_fails(&r);
    r = good_recipe("not one integer");
    r.real_vocab = true;
    open_fails(&r);
    char *huge = calloc(1, 60001);
    memset(huge, 'x', 60000);
    r = good_recipe("tokenizer_sha256 has 60001 bytes");
    r.sha256 = huge;
    open_fails(&r);
    free(huge);
}

static void test_bad_contents(void **state) {
    (void)state;
    recipe r = good_recipe("");
    tokens_file *f;
    int32_t id[10];
    uint64_t start[2];
    r.token = 100;
    cook(at("ids.h5"), &r, true);
    no_error(tokens_open(at("ids.h5"), &f));
    no_error(tokens_read(f, 0, 7, id));
    is_error(tokens_read(f, 5, 5, id), ERR_INPUT, "token 7 is 100, outside the vocabulary of 100");
    tokens_close(f);
    static const uint64_t bad[3][2] = {{1, 5}, {0, 0}, {0, 10}};
    for (int i = 0; i < 3; i++) {
        r = good_recipe("");
        memcpy(r.start, bad[i], sizeof r.start);
        cook(at("starts.h5"), &r, true);
        no_error(tokens_open(at("starts.h5"), &f));
        is_error(tokens_documents(f, 0, 2, start), ERR_INPUT, "starts at token");
        tokens_close(f);
    }
}

static void test_unwritten(void **state) {
    (void)state;
    recipe r = good_recipe("");
    tokens_file *f;
    cook(at("unwritten.h5"), &r, false);
    is_error(tokens_open(at("unwritten.h5"), &f), ERR_INPUT, "not written to its end");
}

static void test_not_hdf5(void **state) {
    (void)state;
    tokens_file *f;
    no_error(write_file_atomic(at("text.h5"), "once upon a time", 16));
    is_error(tokens_open(at("text.h5"), &f), ERR_INPUT, "not an HDF5 file");
    no_error(write_file_atomic(at("nothing.h5"), "", 0));
    is_error(tokens_open(at("nothing.h5"), &f), ERR_INPUT, "not an HDF5 file");
    is_error(tokens_open(at("missing.h5"), &f), ERR_INPUT, "cannot read");
    is_error(tokens_open(dir, &f), ERR_INPUT, "HDF5");
}

// Without the fsync of write_file_atomic: it would be most of the time of the damage tests.
static void put(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "w");
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

// Cut anywhere and flipped anywhere: an error or other tokens, never a crash.
static void test_damage(void **state) {
    (void)state;
    char *data;
    size_t bytes;
    write_sample(at("whole.h5"), 512, 40, 1);
    no_error(read_file(at("whole.h5"), 1 << 24, &data, &bytes));
    for (size_t i = 0; i < 400; i++) {
        size_t place = i * 2654435761u % bytes, n = i % 2 ? bytes : place;
        data[place] ^= (char)(1 << i % 8);
        put(at("damaged.h5"), data, n);
        data[place] ^= (char)(1 << i % 8);
        tokens_file *f;
        err *e = tokens_open(at("damaged.h5"), &f);
        if (!e) {
            uint64_t n_tokens = tokens_get_info(f)->tokens, start[40];
            int32_t id[820];
            e = tokens_read(f, 0, n_tokens < 820 ? n_tokens : 820, id);
            err_free(tokens_documents(f, 0, tokens_get_info(f)->documents < 40 ? 1 : 40, start));
            tokens_close(f);
        }
        if (i % 2 == 0) assert_non_null(e); // cut short
        err_free(e);
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
    return H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == lost_handles
               ? 0
               : -1; // nothing else is left open
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_equal_tokens_give_equal_files),
        cmocka_unit_test(test_writer_refuses), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_no_room),        cmocka_unit_test(test_foreign_writer),
        cmocka_unit_test(test_wrong_types),    cmocka_unit_test(test_wrong_attributes),
        cmocka_unit_test(test_bad_contents),   cmocka_unit_test(test_unwritten),
        cmocka_unit_test(test_not_hdf5),       cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests_name("tokens", tests, set_up, tear_down);
}
