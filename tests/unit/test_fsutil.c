// File helpers: whole or not at all, and errors that name the path.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fsutil.h"

static char *in(void **state, const char *name) { return path_join(*state, name); }

static int setup(void **state) {
    char dir[] = "/tmp/solar-fsutil-XXXXXX";
    *state = mkdtemp(dir) ? strdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    err *e = remove_tree(*state);
    int rc = e || path_exists(*state) ? -1 : 0;
    err_free(e);
    free(*state);
    return rc;
}

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void expect(err *e, err_code code, const char *part) {
    assert_int_equal(err_get_code(e), code);
    if (!strstr(err_text(e), part)) fail_msg("'%s' is not in '%s'", part, err_text(e));
    err_free(e);
}

static void put(const char *path, const void *data, size_t n) { ok(write_file_atomic(path, data, n)); }

static void test_path_join(void **state) {
    (void)state;
    const char *cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *p = path_join(cases[i][0], cases[i][1]);
        assert_string_equal(p, cases[i][2]);
        free(p);
    }
}

static void test_make_dirs_and_remove(void **state) {
    char *deep = in(state, "a/b//c/d"), *top = in(state, "a"), *file = in(state, "a/b/file"),
         *under = in(state, "a/b/file/x");
    ok(make_dirs(deep));
    ok(make_dirs(deep));
    assert_true(is_dir(deep));
    put(file, "x", 1);
    expect(make_dirs(file), ERR_SYSTEM, "a/b/file");
    expect(make_dirs(under), ERR_SYSTEM, "a/b/file");
    ok(remove_tree(top));
    assert_false(path_exists(top));
    ok(remove_tree(top));
    free(deep), free(top), free(file), free(under);
}

static void test_remove_does_not_follow_links(void **state) {
    char *keep = in(state, "keep"), *file = in(state, "keep/file"), *gone = in(state, "gone"),
         *link = in(state, "gone/link");
    ok(make_dirs(keep));
    ok(make_dirs(gone));
    put(file, "x", 1);
    assert_int_equal(symlink(keep, link), 0);
    ok(remove_tree(gone));
    assert_true(path_exists(file));
    free(keep), free(file), free(gone), free(link);
}

static void test_read_file(void **state) {
    char *p = in(state, "f"), *text = NULL;
    size_t n = 0;
    put(p, "ab\0c", 4);
    ok(read_file(p, 4, &text, &n));
    assert_int_equal(n, 4);
    assert_memory_equal(text, "ab\0c\0", 5);
    free(text);
    text = NULL;
    expect(read_file(p, 3, &text, &n), ERR_INPUT, "more than the 3 allowed");
    expect(read_file(*state, 100, &text, &n), ERR_INPUT, "a directory");
    free(p);
    p = in(state, "missing");
    expect(read_file(p, 100, &text, &n), ERR_INPUT, "missing: No such file");
    assert_null(text);
    free(p);
}

static void test_fifo_does_not_hang(void **state) {
    char *p = in(state, "fifo"), *text = NULL;
    assert_int_equal(mkfifo(p, 0600), 0);
    expect(read_file(p, 100, &text, NULL), ERR_INPUT, "expected a file");
    free(p);
}

static void test_write_replaces_whole(void **state) {
    char *p = in(state, "f"), *text = NULL, *nowhere = in(state, "no/f");
    size_t n = 0;
    put(p, "first, longer", 13);
    put(p, "2", 1);
    ok(read_file(p, 100, &text, &n));
    assert_string_equal(text, "2");
    free(text);
    expect(write_file_atomic(nowhere, "x", 1), ERR_SYSTEM, "no/f");
    free(p), free(nowhere);
}

static void test_short_file_is_reported(void **state) {
    char *p = in(state, "f"), buf[8];
    int fd = -1;
    uint64_t size = 0;
    put(p, "1234", 4);
    ok(open_input(p, &fd, &size));
    assert_int_equal(size, 4);
    ok(pread_all(fd, buf, 2, 2, p));
    assert_memory_equal(buf, "34", 2);
    expect(pread_all(fd, buf, 8, 0, p), ERR_SYSTEM, "ends at byte 4, 4 bytes early");
    close(fd);
    free(p);
}

static void test_full_disk_is_named(void **state) {
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    if (!full) skip();
    expect(write_all(fileno(full), "x", 1, "out.bin"), ERR_SYSTEM, "disk or quota is full");
    fclose(full);
}

static void test_copy_file(void **state) {
    char *a = in(state, "a"), *b = in(state, "b");
    size_t n = 3000001, got = 0;
    char *data = malloc(n), *back = NULL;
    for (size_t i = 0; i < n; i++) data[i] = (char)(i * 2654435761u >> 13);
    put(a, data, n);
    ok(copy_file(a, b));
    ok(read_file(b, n, &back, &got));
    assert_int_equal(got, n);
    assert_memory_equal(data, back, n);
    expect(copy_file(a, b), ERR_SYSTEM, "File exists");
    free(data), free(back), free(a), free(b);
}

static void test_sha256(void **state) {
    // FIPS 180-4 examples
    static const char *const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    static const char *const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    static const char *const million_a = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    char out[65], *p = in(state, "f"), *data = malloc(1000000);
    sha256_bytes("", 0, out);
    assert_string_equal(out, empty);
    sha256_bytes("abc", 3, out);
    assert_string_equal(out, abc);
    memset(data, 'a', 1000000);
    put(p, data, 1000000);
    ok(sha256_file(p, out));
    assert_string_equal(out, million_a);
    put(p, "", 0);
    ok(sha256_file(p, out));
    assert_string_equal(out, empty);
    expect(sha256_file(*state, out), ERR_INPUT, "a directory");
    free(data), free(p);
}

static void test_model_extras(void **state) {
    static const char *const taken[] = {"tokenizer.model",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "merges.txt",
                                        "special_tokens_map.json",
                                        "vocab.json",
                                        "chat_template.jinja",
                                        "LICENSE",
                                        "LICENSE.txt"};
    static const char *const left[] = {
        "config.json",       "model.safetensors", "model.safetensors.index.json",
        "pytorch_model.bin", "params.json",       "pytorch_model.bin.index.json",
        "README.md",         "modeling_x.py"};
    char *from = in(state, "from"), *to = in(state, "to");
    ok(make_dirs(from));
    ok(make_dirs(to));
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        char *p = path_join(from, taken[i]);
        put(p, taken[i], strlen(taken[i]));
        free(p);
    }
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        char *p = path_join(from, left[i]);
        put(p, "x", 1);
        free(p);
    }
    ok(copy_model_extras(from, to));
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        char *p = path_join(to, taken[i]), *text = NULL;
        ok(read_file(p, 100, &text, NULL));
        assert_string_equal(text, taken[i]);
        free(text), free(p);
    }
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        char *p = path_join(to, left[i]);
        assert_false(path_exists(p));
        free(p);
    }
    char *link = path_join(from, "vocab.txt"), *nowhere = in(state, "nowhere");
    assert_int_equal(symlink(nowhere, link), 0);
    ok(remove_tree(to));
    ok(make_dirs(to));
    expect(copy_model_extras(from, to), ERR_INPUT, "vocab.txt: No such file");
    free(from), free(to), free(link), free(nowhere);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_join),
        TEST(test_make_dirs_and_remove),
        TEST(test_remove_does_not_follow_links),
        TEST(test_read_file),
        TEST(test_fifo_does_not_hang),
        TEST(test_write_replaces_whole),
        TEST(test_short_file_is_reported),
        TEST(test_full_disk_is_named),
        TEST(test_copy_file),
        TEST(test_sha256),
        TEST(test_model_extras),
    };
    return cmocka_run_group_tests_name("fsutil", tests, NULL, NULL);
}
