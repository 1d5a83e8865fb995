// Documents out of text files: what is good comes through as it is, what is not is counted or named.
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
#include <zlib.h>
#include <zstd.h>

#include "fsutil.h"
#include "text_input.h"
#include "utf8.h"

static char dir[] = "/tmp/solar-text-XXXXXX";

static const char *at(const char *name) {
    static char path[8][300];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, 300, "%s/%s", dir, name);
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

static void put(const char *name, const char *data, size_t bytes) {
    FILE *f = fopen(at(name), "w");
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

static void put_gz(const char *name, const char *data, size_t bytes) {
    gzFile f = gzopen(at(name), "wb");
    assert_int_equal(gzwrite(f, data, (unsigned)bytes), bytes);
    gzclose(f);
}

static void put_zst(const char *name, const char *data, size_t bytes) {
    size_t room = ZSTD_compressBound(bytes);
    char *packed = malloc(room);
    size_t n = ZSTD_compress(packed, room, data, bytes, 3);
    assert_false(ZSTD_isError(n));
    put(name, packed, n);
    free(packed);
}

// All documents of a path, each between [ and ]; NUL is shown as @.
typedef struct seen {
    char text[4096];
    size_t bytes;
    text_counts counts;
    err *error;
} seen;

static seen read_all(const char *path, text_options o) {
    seen s = {.bytes = 0};
    text_input *in = NULL;
    s.error = text_open(&path, 1, &o, &in);
    while (!s.error) {
        const char *text;
        size_t bytes;
        bool end;
        s.error = text_next(in, &text, &bytes, &end);
        if (s.error || end) break;
        assert_int_equal(text[bytes], 0);
        assert_true(s.bytes + bytes + 3 < sizeof s.text);
        s.text[s.bytes++] = '[';
        for (size_t i = 0; i < bytes; i++) s.text[s.bytes++] = text[i] ? text[i] : '@';
        s.text[s.bytes++] = ']';
    }
    if (in) s.counts = text_get_counts(in);
    text_close(in);
    return s;
}

static void gives(const char *name, const char *data, size_t bytes, text_options o, const char *want) {
    put(name, data, bytes);
    seen s = read_all(at(name), o);
    no_error(s.error);
    assert_string_equal(s.text, want);
}

#define GIVES(name, data, o, want) gives(name, data, sizeof(data) - 1, o, want)

static void fails(const char *name, const char *data, size_t bytes, text_options o, const char *words) {
    put(name, data, bytes);
    seen s = read_all(at(name), o);
    is_error(s.error, ERR_INPUT, words);
}

#define FAILS(name, data, o, words) fails(name, data, sizeof(data) - 1, o, words)

static const text_options plain = {0}, strict = {.strict = true}, blank = {.blank_lines = true};

static void test_json_lines(void **state) {
    (void)state;
    GIVES("a.jsonl", "{\"text\": \"one\"}\n{\"id\": 1, \"text\": \"two\\n2\"}\n", plain, "[one][two\n2]");
    GIVES("b.jsonl", "{\"text\": \"no feed at the end\"}", plain, "[no feed at the end]");
    GIVES("c.jsonl", "\xef\xbb\xbf{\"text\": \"mark\"}\r\n\r\n  \n{\"text\": \"feeds\\r\\n\"}\r\n", strict,
          "[mark][feeds\r\n]");
    GIVES("d.ndjson", "{\"text\": \"a\\u0000b\\u00e9\\ud83d\\ude00\"}", strict,
          "[a@b\xc3\xa9\xf0\x9f\x98\x80]");
    GIVES("e.json", "{\"text\": \"big\", \"id\": 123456789012345678901234567890}", strict, "[big]");
    GIVES("f.jsonl", "{\"text\": \"x\", \"body\": \"y\"}", ((text_options){.field = "body"}), "[y]");
    GIVES("g.jsonl", "", plain, "");
    GIVES("h.jsonl", "\n\n\n", plain, "");
}

static void test_broken_lines(void **state) {
    (void)state;
    static const char *const broken[] = {
        "{\"text\": \"cut",
        "not json",
        "[\"text\"]",
        "\"text\"",
        "{\"txt\": \"x\"}",
        "{\"text\": 7}",
        "{\"text\": null}",
        "{\"text\": [\"x\"]}",
        "{\"text\": \"x\"} trailing",
        "{\"text\": \"\\ud800\"}",
        "{\"text\": \"raw \x01 control\"}",
        "{\"text\": \"x\", \"n\": 1e999}",
        "}",
    };
    char data[1024] = "{\"text\": \"good\"}\n";
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char file[200];
        snprintf(file, sizeof file, "{\"text\": \"good\"}\n%s\n{\"text\": \"good\"}\n", broken[i]);
        gives("broken.jsonl", file, strlen(file), plain, "[good][good]");
        fails("broken.jsonl", file, strlen(file), strict, "broken.jsonl:2: ");
        size_t used = strlen(data);
        snprintf(data + used, sizeof data - used, "%s\n", broken[i]);
    }
    put("many.jsonl", data, strlen(data));
    seen s = read_all(at("many.jsonl"), plain);
    no_error(s.error);
    assert_int_equal(s.counts.broken, sizeof broken / sizeof *broken);
    assert_int_equal(s.counts.documents, 1);
    assert_int_equal(s.counts.bytes, 4);
    FAILS("nul.jsonl", "{\"text\"\0: 1}", strict, "nul.jsonl:1: not JSON");
    FAILS("field.jsonl", "{\"txt\": \"x\"}", strict, "no field named text");
    FAILS("type.jsonl", "{\"text\": {}}", strict, "not a string: the field text");
}

static void test_depth_bomb(void **state) {
    (void)state;
    enum { DEPTH = 300000 };
    char *bomb = malloc(DEPTH);
    memset(bomb, '[', DEPTH);
    gives("bomb.jsonl", bomb, DEPTH, plain, "");
    fails("bomb.jsonl", bomb, DEPTH, strict, "bomb.jsonl:1: not JSON");
    free(bomb);
}

static void test_empty_documents(void **state) {
    (void)state;
    put("empty.jsonl", "{\"text\": \"\"}\n{\"text\": \"x\"}\n{\"text\": \"\"}\n", 39);
    seen s = read_all(at("empty.jsonl"), strict);
    no_error(s.error);
    assert_string_equal(s.text, "[x]");
    assert_int_equal(s.counts.empty, 2);
    put("empty.txt", "", 0);
    s = read_all(at("empty.txt"), strict);
    no_error(s.error);
    assert_int_equal(s.counts.empty, 1);
    assert_int_equal(s.counts.documents, 0);
}

static void test_plain_text(void **state) {
    (void)state;
    GIVES("a.txt", "one\r\n\r\ntwo\r", strict, "[one\n\ntwo\r]");
    GIVES("b.text", "\xef\xbb\xbfno mark\n", strict, "[no mark\n]");
    GIVES("c.txt", "a\0b", strict, "[a@b]");
    GIVES("d.txt", "\n\none\nmore\n\n\n \t\r\ntwo\r\nmore\r\n\r\nthree", blank,
          "[one\nmore][two\nmore][three]");
    GIVES("e.txt", "\n \n", blank, "");
}

static void test_invalid_utf8(void **state) {
    (void)state;
    put("bad.jsonl", "{\"text\": \"a\xff\x62\xe2\x82\"}\n", 18);
    seen s = read_all(at("bad.jsonl"), plain);
    no_error(s.error);
    assert_string_equal(s.text, "[a\xef\xbf\xbd\x62\xef\xbf\xbd]");
    assert_int_equal(s.counts.invalid_utf8, 2);
    FAILS("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", strict,
          "bad.jsonl:2: invalid UTF-8 at byte 10 (0xff)");
    FAILS("bad.txt", "one\ntwo\n\xc0\x80", strict, "bad.txt:3: invalid UTF-8");
    GIVES("bad.txt", "\x80", plain, "[\xef\xbf\xbd]");
}

// Pieces as in Unicode 15, section 3.9, table 3-8 and its neighbours.
static void test_utf8_pieces(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        int replaced;
    } t[] = {{"\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", "a???b?c??d", 6},
             {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A", 8},
             {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A", 8},
             {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B", 7},
             {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A", 4},
             {"long enough for eight at a time: \xf0\x9f\x98", "long enough for eight at a time: ?", 1}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char out[200], short_out[200];
        uint64_t replaced = 0;
        size_t n = utf8_replace(t[i].in, strlen(t[i].in), out, &replaced), m = 0;
        for (size_t k = 0; k < n; k++) {
            bool mark = n - k >= 3 && memcmp(out + k, "\xef\xbf\xbd", 3) == 0;
            short_out[m++] = mark ? '?' : out[k];
            k += mark ? 2 : 0;
        }
        short_out[m] = 0;
        assert_string_equal(short_out, t[i].out);
        assert_int_equal(replaced, t[i].replaced);
        assert_int_equal(utf8_valid_prefix(out, n), n);
    }
    const char good[] = "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
                        "\xf4\x8f\xbf\xbf";
    assert_int_equal(utf8_valid_prefix(good, sizeof good - 1), sizeof good - 1);
}

// ---- packed files

static char *long_json(size_t lines, size_t *bytes) {
    char *data = malloc(lines * 64);
    *bytes = 0;
    for (size_t i = 0; i < lines; i++)
        *bytes += (size_t)sprintf(data + *bytes, "{\"text\": \"document %zu, %zu\"}\n", i,
                                  i * 2654435761u % 1000003);
    return data;
}

static void check_long(const char *path, size_t lines) {
    text_input *in;
    const char *text;
    size_t bytes;
    bool end;
    no_error(text_open(&path, 1, &strict, &in));
    for (size_t i = 0; i < lines; i++) {
        char want[64];
        snprintf(want, sizeof want, "document %zu, %zu", i, i * 2654435761u % 1000003);
        no_error(text_next(in, &text, &bytes, &end));
        assert_false(end);
        assert_string_equal(text, want);
    }
    for (int i = 0; i < 3; i++) {
        no_error(text_next(in, &text, &bytes, &end));
        assert_true(end);
        assert_null(text);
    }
    assert_int_equal(text_position(in), text_size(in));
    text_close(in);
}

static void test_packed(void **state) {
    (void)state;
    enum { LINES = 60000 }; // more than any buffer
    size_t bytes;
    char *data = long_json(LINES, &bytes);
    put("long.jsonl", data, bytes);
    put_gz("long.jsonl.gz", data, bytes);
    put_zst("long.jsonl.zst", data, bytes);
    check_long(at("long.jsonl"), LINES);
    check_long(at("long.jsonl.gz"), LINES);
    check_long(at("long.jsonl.zst"), LINES);
    free(data);
}

// Archives of several members are one text.
static void test_joined_archives(void **state) {
    (void)state;
    static const char *const kind[] = {"gz", "zst"};
    for (int k = 0; k < 2; k++) {
        char name[32], *data;
        size_t n;
        snprintf(name, sizeof name, "part.txt.%s", kind[k]);
        (k ? put_zst : put_gz)(name, "half ", 5);
        no_error(read_file(at(name), 1000, &data, &n));
        char *both = malloc(2 * n);
        memcpy(both, data, n);
        memcpy(both + n, data, n);
        gives(name, both, 2 * n, strict, "[half half ]");
        free(both);
        free(data);
    }
}

static void test_damaged_archives(void **state) {
    (void)state;
    static const char *const kind[] = {"gz", "zst"};
    size_t bytes;
    char *text = long_json(20000, &bytes);
    for (int k = 0; k < 2; k++) {
        char name[32], *data;
        size_t n;
        snprintf(name, sizeof name, "cut.jsonl.%s", kind[k]);
        (k ? put_zst : put_gz)(name, text, bytes);
        no_error(read_file(at(name), 1 << 24, &data, &n));
        for (size_t keep = n - 1; keep > 10; keep = keep * 2 / 3) {
            put(name, data, keep);
            const char *path = at(name);
            text_input *in;
            const char *t;
            size_t b;
            bool end = false;
            no_error(text_open(&path, 1, &strict, &in));
            err *e = NULL;
            while (!e && !end) e = text_next(in, &t, &b, &end);
            is_error(e, ERR_INPUT, "cut short");
            text_close(in);
        }
        free(data);
    }
    free(text);
    FAILS("no.txt.gz", "plain text", plain, "not gzip data");
    FAILS("no.txt.gz", "", plain, "not gzip data");
    FAILS("no.txt.zst", "plain text", plain, "not good Zstandard data");
    FAILS("no.txt.zst", "", plain, "is empty");
}

// ---- which files

static void test_directories(void **state) {
    (void)state;
    no_error(make_dirs(at("tree/b/deep")));
    no_error(make_dirs(at("tree/c")));
    put("tree/b/2.txt", "two", 3);
    put("tree/b/deep/3.jsonl", "{\"text\": \"three\"}", 17);
    put_gz("tree/a.txt.gz", "one", 3);
    put("tree/c/4.txt", "four", 4);
    put("tree/c/.hidden.txt", "x", 1);
    put("tree/c/notes.md", "x", 1);
    put("tree/c/.txt", "x", 1);
    const char *paths[] = {at("tree"), at("tree/b/2.txt")};
    text_input *in;
    no_error(text_open(paths, 2, NULL, &in));
    assert_int_equal(text_files(in), 5);
    assert_int_equal(text_skipped_files(in), 1);
    static const char *const want[] = {"one", "two", "three", "four", "two"};
    for (int i = 0; i < 5; i++) {
        const char *text;
        size_t bytes;
        bool end;
        no_error(text_next(in, &text, &bytes, &end));
        assert_string_equal(text, want[i]);
    }
    text_close(in);
}

static void test_paths_refused(void **state) {
    (void)state;
    is_error(read_all(at("missing.txt"), plain).error, ERR_INPUT, "no such file");
    FAILS("text.pdf", "x", plain, "does not say what it holds");
    GIVES("text.pdf", "x", ((text_options){.format = TEXT_PLAIN}), "[x]");
    GIVES("lines.txt", "{\"text\": \"x\"}", ((text_options){.format = TEXT_JSONL}), "[x]");
    no_error(make_dirs(at("hollow/deeper")));
    is_error(read_all(at("hollow"), plain).error, ERR_INPUT, "no text found");
    no_error(make_dirs(at("loop")));
    assert_int_equal(symlink(at("loop"), at("loop/again")), 0);
    err *e = read_all(at("loop"), plain).error; // the system's own limit on links may come first
    assert_non_null(e);
    err_free(e);
    assert_int_equal(mkfifo(at("pipe.txt"), 0600), 0);
    is_error(read_all(at("pipe.txt"), plain).error, ERR_INPUT, "neither a file nor a directory");
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
        cmocka_unit_test(test_json_lines),      cmocka_unit_test(test_broken_lines),
        cmocka_unit_test(test_depth_bomb),      cmocka_unit_test(test_empty_documents),
        cmocka_unit_test(test_plain_text),      cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_utf8_pieces),     cmocka_unit_test(test_packed),
        cmocka_unit_test(test_joined_archives), cmocka_unit_test(test_damaged_archives),
        cmocka_unit_test(test_directories),     cmocka_unit_test(test_paths_refused),
    };
    return cmocka_run_group_tests_name("text_input", tests, set_up, tear_down);
}
