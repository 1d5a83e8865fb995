// safetensors: hostile headers and indexes, exact conversion, slices, and what the writer writes.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "fsutil.h"
#include "safetensors.h"

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static int setup(void **state) {
    char dir[] = "/tmp/solar-st-XXXXXX";
    *state = mkdtemp(dir) ? strdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    ok(remove_tree(*state));
    free(*state);
    return 0;
}

static char *put(const char *dir, const char *name, const void *data, size_t n) {
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "wb"); // not synced: there are thousands of them
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

// A file of this header and `data` bytes of data; `length` is what the first 8 bytes say (-1: the truth).
static char *put_st(const char *dir, const char *name, const char *header, size_t bytes, size_t data,
                    uint64_t length) {
    unsigned char *file = calloc(1, 8 + bytes + data);
    if (length == UINT64_MAX) length = bytes;
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(length >> (8 * i));
    memcpy(file + 8, header, bytes);
    for (size_t i = 0; i < data; i++) file[8 + bytes + i] = (unsigned char)(i + 1);
    char *path = put(dir, name, file, 8 + bytes + data);
    free(file);
    return path;
}

static void expect_open_error(const char *path, const char *why, size_t number) {
    st_set *s = NULL;
    err *e = st_open(path, &s);
    if (err_get_code(e) != ERR_INPUT || !strstr(err_text(e), why))
        fail_msg("case %zu: '%s' is not in '%s'", number, why, err_text(e));
    assert_null(s);
    err_free(e);
}

// ---- hostile headers

#define T(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define A(shape, offsets)        "{\"a\":" T("\"F32\"", shape, offsets) "}"
#define AB(a, b)                 "{\"a\":" T("\"F32\"", "[2]", a) ",\"b\":" T("\"F32\"", "[2]", b) "}"

typedef struct hostile {
    const char *header;
    size_t data;
    const char *why;
} hostile;

static const hostile hostiles[] = {
    {"", 0, "does not start with '{'"},
    {"[]", 0, "does not start with '{'"},
    {" {}", 0, "does not start with '{'"},
    {"{", 0, "header: "},
    {"{}}", 0, "end of file expected"},
    {"{}\\", 0, "end of file expected"},
    {"{\"a\":}", 0, "header: "},
    {"{\"a\xff\":1}", 0, "unable to decode"},
    {"{\"\\ud800\":1}", 0, "header: "},
    {"{\"a\\u0000b\":" T("\"F32\"", "[0]", "[0,0]") "}", 0, "header: "},
    {"{\"a\":1}", 0, "tensor a: expected an object"},
    {"{\"a\":[]}", 0, "tensor a: expected an object"},
    {"{\"a\":null}", 0, "tensor a: expected an object"},
    {"{\"a\":{}}", 0, "tensor a: expected an object"},
    {"{\"\":" T("\"F32\"", "[0]", "[0,0]") "}", 0, "tensor name of 0 bytes"},
    {"{\"a\\u001b[2J\":" T("\"F32\"", "[0]", "[0,0]") "}", 0, "tensor name a?[2J holds control characters"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "expected an object of dtype, shape and data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
     "expected an object of dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate"},
    {"{\"a\":" T("\"F32\"", "[1]", "[0,4]") ",\"a\":" T("\"F32\"", "[1]", "[4,8]") "}", 8, "duplicate"},
    {"{\"a\":" T("\"I64\"", "[1]", "[0,8]") "}", 8, "dtype I64, expected F32, F16 or BF16"},
    {"{\"a\":" T("\"F8_E4M3\"", "[1]", "[0,1]") "}", 1, "dtype F8_E4M3"},
    {"{\"a\":" T("\"f32\"", "[1]", "[0,4]") "}", 4, "dtype f32"},
    {"{\"a\":" T("7", "[1]", "[0,4]") "}", 4, "dtype that is not a string"},
    {A("4", "[0,4]"), 4, "shape: expected a list"},
    {A("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8 sizes"},
    {A("[-1]", "[0,4]"), 4, "shape[0]: expected an integer of 0 or more"},
    {A("[1.0]", "[0,4]"), 4, "shape[0]: expected an integer"},
    {A("[1,\"1\"]", "[0,4]"), 4, "shape[1]: expected an integer"},
    {A("[99999999999999999999]", "[0,4]"), 4, "too big"},
    {A("[4294967296,4294967296]", "[0,4]"), 4, "product of its sizes overflows"},
    {A("[4294967296,4294967296,0]", "[0,0]"), 0, "overflows"},
    {A("[4611686018427387905]", "[0,4]"), 4, "do not fill"},
    {A("[1]", "[0]"), 4, "expected two integers"},
    {A("[1]", "[0,4,8]"), 4, "expected two integers"},
    {A("[1]", "{}"), 4, "expected two integers"},
    {A("[1]", "[-4,0]"), 4, "expected two integers of 0 or more"},
    {A("[1]", "[0,4.0]"), 4, "expected two integers"},
    {A("[1]", "[4,0]"), 4, "found [4, 0] in a file with 4 bytes"},
    {A("[2]", "[0,8]"), 4, "found [0, 8] in a file with 4 bytes of data: was it cut short?"},
    {A("[1]", "[9223372036854775804,9223372036854775807]"), 4, "in a file with 4 bytes"},
    {A("[1]", "[0,9223372036854775807]"), 4, "in a file with 4 bytes"},
    {A("[1]", "[0,8]"), 8, "1 elements of F32 do not fill the 8 bytes"},
    {A("[2]", "[0,4]"), 4, "2 elements of F32 do not fill the 4 bytes"},
    {A("[]", "[0,0]"), 0, "1 elements of F32 do not fill the 0 bytes"},
    {AB("[0,8]", "[4,12]"), 12, "tensors a and b overlap at byte 4"},
    {AB("[0,8]", "[0,8]"), 8, "overlap at byte 0"},
    {AB("[0,8]", "[12,20]"), 20, "4 bytes in front of tensor b belong to no tensor"},
    {AB("[4,12]", "[12,20]"), 20, "4 bytes in front of tensor a"},
    {AB("[0,8]", "[8,16]"), 20, "4 bytes behind the last tensor"},
    {AB("[0,8]", "[8,16]"), 12, "cut short"},
    {"{}", 1, "1 bytes behind the last tensor"},
    {"{\"__metadata__\":[]}", 0, "__metadata__: expected an object of strings"},
    {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__: format: expected a string"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "duplicate"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate"},
    {"{\"a\":[[[[[[[[[[]]]]]]]]]]}", 0, "nests deeper than 8"},
    {"{\"a\":\"\\\"[[[[[[[[[[\"}", 0, "tensor a: expected an object"},
};

static void test_hostile_headers(void **state) {
    for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++) {
        char *path = put_st(*state, "x.safetensors", hostiles[i].header, strlen(hostiles[i].header),
                            hostiles[i].data, UINT64_MAX);
        expect_open_error(path, hostiles[i].why, i);
        free(path);
    }
}

static void test_hostile_lengths(void **state) {
    const struct {
        uint64_t length;
        const char *why;
    } cases[] = {{3, "header has 3 bytes, but the file ends after 10"},
                 {99999999, "but the file ends"},
                 {100000001, "at most 100000000: not a safetensors file?"},
                 {UINT64_MAX - 1, "header has 18446744073709551614 bytes"},
                 {UINT64_MAX - 7, "header has 18446744073709551608 bytes"},
                 {1ull << 63, "header has 9223372036854775808 bytes"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = put_st(*state, "x.safetensors", "{}", 2, 0, cases[i].length);
        expect_open_error(path, cases[i].why, i);
        free(path);
    }
    for (size_t n = 0; n < 8; n++) {
        char *path = put(*state, "x.safetensors", "\2\0\0\0\0\0\0", n);
        expect_open_error(path, "expected at least 8", n);
        free(path);
    }
}

static void test_hostile_bulk(void **state) {
    enum { DEEP = 5000000, MANY = 2100000 };
    char *text = malloc(2 * MANY + DEEP), *path = NULL;
    memset(text, '[', DEEP);
    memcpy(text, "{\"a\":", 5);
    path = put_st(*state, "deep.safetensors", text, DEEP, 0, UINT64_MAX);
    expect_open_error(path, "nests deeper", 0);
    free(path);
    memset(text, '"', DEEP);
    memcpy(text, "{\"", 2);
    path = put_st(*state, "quotes.safetensors", text, DEEP, 0, UINT64_MAX);
    expect_open_error(path, "header: ", 1);
    free(path);
    size_t n = (size_t)sprintf(text, "{\"a\":[1");
    for (int i = 0; i < MANY; i++, n += 2) memcpy(text + n, ",1", 2);
    path = put_st(*state, "many.safetensors", text, n, 0, UINT64_MAX);
    expect_open_error(path, "more than 2000000 values", 2);
    free(path);
    n = (size_t)sprintf(text, "{\"");
    memset(text + n, 'x', 600);
    n += 600;
    n += (size_t)sprintf(text + n, "\":" T("\"F32\"", "[0]", "[0,0]") "}");
    path = put_st(*state, "name.safetensors", text, n, 0, UINT64_MAX);
    expect_open_error(path, "tensor name of 600 bytes", 3);
    free(path), free(text);
}

// Every byte of a good file changed in turn, and every cut: an error or a set, never a crash.
static void test_every_byte_and_every_cut(void **state) {
    const char header[] = "{\"__metadata__\":{\"k\":\"v\"},\"a\":" T("\"F32\"", "[2]", "[0,8]") ",\"b\":" T(
        "\"BF16\"", "[2,1]", "[8,12]") "}";
    char *path = put_st(*state, "good.safetensors", header, strlen(header), 12, UINT64_MAX), *text = NULL;
    size_t n = 0, opened = 0;
    ok(read_file(path, 1000, &text, &n));
    for (size_t i = 0; i < n; i++)
        for (int flip = 1; flip < 256; flip <<= 1) {
            text[i] ^= (char)flip;
            char *bent = put(*state, "bent.safetensors", text, n);
            st_set *s = NULL;
            err *e = st_open(bent, &s);
            if (e) assert_int_equal(err_get_code(e), ERR_INPUT);
            opened += !e;
            err_free(e), st_close(s), free(bent);
            text[i] ^= (char)flip;
        }
    assert_true(opened >= 12 * 8); // at least the flips in the data go unnoticed here
    for (size_t i = 0; i < n; i++) {
        char *cut = put(*state, "cut.safetensors", text, i);
        st_set *s = NULL;
        err *e = st_open(cut, &s);
        assert_int_equal(err_get_code(e), ERR_INPUT);
        err_free(e), free(cut);
    }
    free(path), free(text);
}

// ---- legal oddities

static void test_legal_files(void **state) {
    st_set *s = NULL;
    const char *header =
        "{\"z\":" T("\"F32\"", "[]", "[6,10]") ",\"empty\":" T("\"F16\"", "[0,5]", "[6,6]") ",\"a\":" T(
            "\"F16\"", "[3]", "[0,6]") ",\"last\":" T("\"BF16\"", "[0]",
                                                      "[10,10]") ",\"__metadata__\":{\"format\":\"pt\"}}   ";
    char *path = put_st(*state, "x.safetensors", header, strlen(header), 10, UINT64_MAX);
    ok(st_open(path, &s));
    assert_int_equal(st_count(s), 4);
    assert_string_equal(st_at(s, 0)->name, "a");
    assert_string_equal(st_at(s, 1)->name, "empty");
    assert_string_equal(st_at(s, 2)->name, "z");
    assert_string_equal(st_at(s, 3)->name, "last");
    assert_int_equal(st_at(s, 2)->ndim, 0);
    assert_int_equal(st_at(s, 1)->bytes, 0);
    assert_string_equal(st_metadata(s, "format"), "pt");
    assert_null(st_metadata(s, "other"));
    assert_null(st_find(s, "b"));
    assert_string_equal(st_file_path(s, 0), path);
    assert_int_equal(st_file_count(s), 1);
    unsigned char bytes[4];
    ok(st_read(s, st_find(s, "z"), 0, bytes, 4));
    assert_memory_equal(bytes, "\7\10\11\12", 4);
    ok(st_read(s, st_find(s, "a"), 2, bytes, 2));
    assert_memory_equal(bytes, "\3\4", 2);
    err *e = st_read(s, st_find(s, "a"), 4, bytes, 4);
    assert_int_equal(err_get_code(e), ERR_RUNTIME);
    err_free(e), st_close(s), free(path);
    path = put_st(*state, "none.safetensors", "{}", 2, 0, UINT64_MAX);
    ok(st_open(path, &s));
    assert_int_equal(st_count(s), 0);
    assert_null(st_find(s, "a"));
    st_close(s), free(path);
    st_close(NULL);
}

// ---- the index

static void one_tensor(const char *dir, const char *file, const char *name) {
    char header[200];
    int n = snprintf(header, sizeof header, "{\"%s\":" T("\"F32\"", "[1]", "[0,4]") "}", name);
    free(put_st(dir, file, header, (size_t)n, 4, UINT64_MAX));
}

static void test_good_index(void **state) {
    const char *index = "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"b\":\"two.safetensors\",\"a\":"
                        "\"one.safetensors\"}}";
    one_tensor(*state, "one.safetensors", "a");
    one_tensor(*state, "two.safetensors", "b");
    one_tensor(*state, "consolidated.safetensors", "not-ours");
    free(put(*state, "model.safetensors.index.json", index, strlen(index)));
    st_set *s = NULL;
    ok(st_open(*state, &s));
    assert_int_equal(st_count(s), 2);
    assert_int_equal(st_file_count(s), 2);
    assert_string_equal(st_at(s, 1)->name, "b");
    assert_int_equal(st_at(s, 1)->file, 1);
    st_close(s);
}

static void test_bad_indexes(void **state) {
    const struct {
        const char *index, *why;
    } cases[] = {
        {"", "index.json:1:"},
        {"[]", "found no weight_map"},
        {"{\"weight_map\":[]}", "found no weight_map"},
        {"{\"weight_map\":{}}", "names no file"},
        {"{\"weight_map\":{\"a\":7}}", "weight_map: a: expected the name of a file"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "found \"../one.safetensors\""},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "found \"/etc/passwd\""},
        {"{\"weight_map\":{\"a\":\"..\"}}", "found \"..\""},
        {"{\"weight_map\":{\"a\":\"\"}}", "found \"\""},
        {"{\"weight_map\":{\"a\":\"one.bin\"}}", "found \"one.bin\""},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}", "three.safetensors: No such file"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"one.safetensors\"}}",
         "tensor c is not in one.safetensors"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}", "the index says"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"extra.safetensors\"}}",
         "tensor d of "},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"same.safetensors\"}}", "is in both"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}", "duplicate"},
        {"{\"weight_map\":{\"a\":\"dir.safetensors\"}}", "is a directory"},
        {"{\"a\":[[[[[[[[[[[[]]]]]]]]]]]]}", "nests deeper"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}} x", "end of file expected"},
    };
    one_tensor(*state, "one.safetensors", "a");
    one_tensor(*state, "two.safetensors", "b");
    one_tensor(*state, "same.safetensors", "a");
    const char *extra = "{\"c\":" T("\"F32\"", "[1]", "[0,4]") ",\"d\":" T("\"F32\"", "[1]", "[4,8]") "}";
    free(put_st(*state, "extra.safetensors", extra, strlen(extra), 8, UINT64_MAX));
    char *dir = path_join(*state, "dir.safetensors");
    ok(make_dirs(dir));
    free(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        free(put(*state, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index)));
        expect_open_error(*state, cases[i].why, i);
    }
}

static void test_which_model(void **state) {
    expect_open_error(*state, "holds neither model.safetensors.index.json nor model.safetensors", 0);
    one_tensor(*state, "model.safetensors", "a");
    st_set *s = NULL;
    ok(st_open(*state, &s));
    st_close(s);
    one_tensor(*state, "one.safetensors", "b");
    const char *index = "{\"weight_map\":{\"b\":\"one.safetensors\"}}";
    free(put(*state, "model.safetensors.index.json", index, strlen(index)));
    expect_open_error(*state, "holds both model.safetensors and an index of other files", 1);
    index = "{\"weight_map\":{\"a\":\"model.safetensors\"}}";
    free(put(*state, "model.safetensors.index.json", index, strlen(index)));
    s = NULL;
    ok(st_open(*state, &s));
    st_close(s);
    expect_open_error("/nonexistent/x", "No such file", 2);
}

// ---- conversion and slices

// The value of an IEEE half, by its definition.
static double half_value(unsigned h) {
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double v = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) v = fraction ? NAN : INFINITY;
    return h & 0x8000 ? -v : v;
}

static st_set *write_and_open(const char *dir, dtype dt, int64_t rows, int64_t cols, const void *data) {
    char *path = path_join(dir, "one.safetensors");
    st_decl d = {"a", dt, 2, {rows, cols}};
    st_writer *w = NULL;
    st_set *s = NULL;
    ok(remove_tree(path));
    ok(st_writer_open(path, &d, 1, NULL, 0, &w));
    ok(st_write(w, data, (uint64_t)(rows * cols) * dtype_size(dt)));
    ok(st_writer_close(w));
    ok(st_open(path, &s));
    free(path);
    return s;
}

static void test_every_half(void **state) {
    static uint16_t half[65536], brain[65536];
    static float single[65536];
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    st_set *s = write_and_open(*state, DT_F16, 256, 256, half);
    ok(st_read_slice(s, st_at(s, 0), 0, 256, 0, 256, DT_F32, single));
    ok(st_read_slice(s, st_at(s, 0), 0, 256, 0, 256, DT_BF16, brain));
    for (int i = 0; i < 65536; i++) {
        double v = half_value((unsigned)i);
        if (isnan(v)) {
            assert_true(isnan(single[i]) && isnan(bf16_to_float(brain[i])));
            continue;
        }
        assert_true((double)single[i] == v && !signbit(single[i]) == !signbit(v));
        assert_int_equal(brain[i], bf16_from_float((float)v));
    }
    st_close(s);
}

static void test_every_brain_float(void **state) {
    static uint16_t brain[65536], back[65536];
    static float single[65536];
    for (int i = 0; i < 65536; i++) brain[i] = (uint16_t)i;
    st_set *s = write_and_open(*state, DT_BF16, 256, 256, brain);
    ok(st_read_slice(s, st_at(s, 0), 0, 256, 0, 256, DT_F32, single));
    ok(st_read_slice(s, st_at(s, 0), 0, 256, 0, 256, DT_BF16, back));
    assert_memory_equal(brain, back, sizeof brain);
    for (int i = 0; i < 65536; i++) {
        uint32_t bits;
        memcpy(&bits, &single[i], 4);
        assert_true(bits == (uint32_t)i << 16);
    }
    st_close(s);
}

static void test_rounding_to_nearest_even(void **state) {
    const uint32_t in[8] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff,
                            0x7f7fffff, 0xff800000, 0x7f800001, 0x80000001};
    const uint16_t out[8] = {0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0xff80, 0x7fc0, 0x8000};
    uint16_t got[8];
    st_set *s = write_and_open(*state, DT_F32, 2, 4, in);
    ok(st_read_slice(s, st_at(s, 0), 0, 2, 0, 4, DT_BF16, got));
    assert_memory_equal(got, out, sizeof out);
    st_close(s);
}

// Element (i, j) of the test matrices, exact in every type.
static float value_at(int64_t i, int64_t j) { return (float)((i * 31 + j * 7) % 251 - 125); }

static void *test_matrix(dtype dt, int64_t rows, int64_t cols) {
    char *data = malloc((size_t)(rows * cols) * dtype_size(dt));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            float v = value_at(i, j);
            bf16 b = bf16_from_float(v);
            memcpy(data + (size_t)(i * cols + j) * dtype_size(dt), dt == DT_F32 ? (void *)&v : (void *)&b,
                   dtype_size(dt));
        }
    return data;
}

static void check_slice(const st_set *s, int64_t row0, int64_t rows, int64_t col0, int64_t cols, dtype to) {
    size_t n = (size_t)(rows * cols), size = dtype_size(to);
    char *got = malloc(n * size + 8);
    memset(got + n * size, 0x5a, 8);
    ok(st_read_slice(s, st_at(s, 0), row0, rows, col0, cols, to, got));
    for (size_t k = 0; k < n; k++) {
        float v;
        bf16 b;
        memcpy(to == DT_F32 ? (void *)&v : (void *)&b, got + k * size, size);
        if (to == DT_BF16) v = bf16_to_float(b);
        assert_true(v == value_at(row0 + (int64_t)k / cols, col0 + (int64_t)k % cols));
    }
    assert_memory_equal(got + n * size, "ZZZZZZZZ", 8);
    free(got);
}

// Sizes around the scratch buffer of the reader (1 MiB): many rows, few long rows, rows longer than it.
static void test_slices(void **state) {
    static const int64_t sizes[][2] = {{1, 1}, {7, 5}, {900, 700}, {3, 400000}, {400000, 1}, {2, 600001}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (dtype dt = DT_F32; dt <= DT_BF16; dt++)
            for (dtype to = DT_F32; to <= DT_BF16; to++) {
                int64_t rows = sizes[i][0], cols = sizes[i][1];
                void *data = test_matrix(dt, rows, cols);
                st_set *s = write_and_open(*state, dt, rows, cols, data);
                check_slice(s, 0, rows, 0, cols, to);
                check_slice(s, rows / 2, rows - rows / 2, 0, cols, to);
                check_slice(s, rows / 3, rows - rows / 3, cols / 3, (cols + 1) / 2, to);
                check_slice(s, 0, rows, cols - 1, 1, to);
                check_slice(s, rows, 0, 0, cols, to);
                st_close(s), free(data);
            }
}

static void test_slices_out_of_range(void **state) {
    static const int64_t bad[][4] = {{0, 4, 0, 1}, {-1, 1, 0, 1}, {3, 1, 0, 1},         {0, 1, 0, 3},
                                     {0, 1, 2, 1}, {0, -1, 0, 1}, {1, INT64_MAX, 0, 1}, {0, 1, 1, INT64_MAX}};
    float data[6] = {0}, out[6];
    st_set *s = write_and_open(*state, DT_F32, 3, 2, data);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err *e = st_read_slice(s, st_at(s, 0), bad[i][0], bad[i][1], bad[i][2], bad[i][3], DT_F32, out);
        assert_int_equal(err_get_code(e), ERR_RUNTIME);
        err_free(e);
    }
    st_close(s);
}

static void test_file_cut_while_open(void **state) {
    float data[6] = {0}, out[6];
    st_set *s = write_and_open(*state, DT_F32, 3, 2, data);
    assert_int_equal(truncate(st_file_path(s, 0), (off_t)st_at(s, 0)->offset + 20), 0);
    err *e = st_read_slice(s, st_at(s, 0), 0, 3, 0, 2, DT_F32, out);
    assert_int_equal(err_get_code(e), ERR_SYSTEM);
    assert_non_null(strstr(err_text(e), "tensor a: "));
    assert_non_null(strstr(err_text(e), "4 bytes early"));
    err_free(e), st_close(s);
}

// ---- writing

static const st_decl decls[] = {{"scalar", DT_F32, 0, {0}},
                                {"none", DT_BF16, 2, {0, 3}},
                                {"m\xc3\xa9\"\\", DT_BF16, 2, {2, 3}},
                                {"end", DT_F16, 1, {0}}};

static void test_writer(void **state) {
    const char *const meta[][2] = {{"solar.depth_plan", "0-3,1-4"}, {"x", "y"}};
    const unsigned char data[16] = "0123456789abcdef", *p = data;
    char *path = path_join(*state, "w.safetensors"), *text = NULL, hash[33];
    st_writer *w = NULL;
    ok(st_writer_open(path, decls, 4, meta, 2, &w));
    for (size_t step = 1; p < data + 16; p += step, step = 3) // pieces that straddle the tensors
        ok(st_write(w, p, (uint64_t)(data + 16 - p) < step ? (uint64_t)(data + 16 - p) : step));
    const int length[] = {4, 0, 12, 0}, start[] = {0, 4, 4, 16};
    for (int i = 0; i < 4; i++) {
        XXH128_hash_t h = XXH3_128bits(data + start[i], (size_t)length[i]);
        snprintf(hash, sizeof hash, "%016llx%016llx", (unsigned long long)h.high64,
                 (unsigned long long)h.low64);
        assert_string_equal(st_writer_hash(w, i), hash);
    }
    ok(st_writer_close(w));
    st_set *s = NULL;
    ok(st_open(path, &s));
    assert_int_equal(st_count(s), 4);
    for (int i = 0; i < 4; i++) {
        const st_tensor *t = st_find(s, decls[i].name);
        char bytes[16];
        assert_non_null(t);
        assert_int_equal(t->dt, decls[i].dt);
        assert_int_equal(t->ndim, decls[i].ndim);
        assert_int_equal(t->bytes, length[i]);
        assert_memory_equal(t->shape, decls[i].shape, sizeof(int64_t) * (size_t)t->ndim);
        ok(st_read(s, t, 0, bytes, t->bytes));
        assert_memory_equal(bytes, data + start[i], t->bytes);
    }
    assert_int_equal(st_find(s, "scalar")->offset % 64, 0);
    assert_string_equal(st_metadata(s, "format"), "pt");
    assert_string_equal(st_metadata(s, "solar.depth_plan"), "0-3,1-4");
    st_close(s);
    ok(read_file(path, 1000, &text, NULL));
    assert_int_equal(text[8], '{');
    free(text), free(path);
}

static void expect_and_free(err *e, err_code code, const char *part) {
    assert_int_equal(err_get_code(e), code);
    if (!strstr(err_text(e), part)) fail_msg("'%s' is not in '%s'", part, err_text(e));
    err_free(e);
}

static void test_writer_misuse(void **state) {
    char *path = path_join(*state, "w.safetensors");
    const st_decl twice[] = {{"a", DT_F32, 1, {1}}, {"a", DT_F32, 1, {1}}};
    const st_decl negative = {"a", DT_F32, 1, {-1}}, huge = {"a", DT_F32, 2, {1ll << 40, 1ll << 40}};
    const st_decl bad_name = {"\xff", DT_F32, 1, {1}};
    st_writer *w = NULL;
    expect_and_free(st_writer_open(path, twice, 2, NULL, 0, &w), ERR_RUNTIME, "declared twice");
    expect_and_free(st_writer_open(path, &negative, 1, NULL, 0, &w), ERR_RUNTIME, "impossible shape");
    expect_and_free(st_writer_open(path, &huge, 1, NULL, 0, &w), ERR_RUNTIME, "impossible shape");
    expect_and_free(st_writer_open(path, &bad_name, 1, NULL, 0, &w), ERR_RUNTIME, "not UTF-8");
    assert_false(path_exists(path));
    ok(st_writer_open(path, twice, 1, NULL, 0, &w));
    ok(st_write(w, "12", 2));
    expect_and_free(st_writer_close(w), ERR_RUNTIME, "tensor a has 2 of its 4 bytes");
    assert_false(path_exists(path));
    ok(st_writer_open(path, twice, 1, NULL, 0, &w));
    expect_and_free(st_write(w, "12345", 5), ERR_RUNTIME, "more data than declared");
    st_writer_abort(w);
    assert_false(path_exists(path));
    free(put(*state, "w.safetensors", "mine", 4));
    expect_and_free(st_writer_open(path, twice, 1, NULL, 0, &w), ERR_SYSTEM, "File exists");
    assert_true(path_exists(path));
    st_writer_abort(NULL);
    free(path);
}

// Copies between `from` and `to`, directories of one file system or of two.
static void check_write_from(const char *from, const char *to) {
    enum { BIG = 9000001 }; // more than the scratch of the slow way
    const st_decl d[] = {{"a", DT_F16, 1, {BIG}}, {"none", DT_F32, 1, {0}}, {"b", DT_F32, 1, {2}}};
    char *path = path_join(to, "w.safetensors"), *data = malloc(2 * BIG), *back = malloc(2 * BIG);
    for (size_t i = 0; i < 2 * BIG; i++) data[i] = (char)(i * 2654435761u >> 11);
    st_set *s = write_and_open(from, DT_BF16, BIG, 1, data), *copy = NULL;
    const st_tensor *t = st_at(s, 0);
    st_writer *w = NULL;
    ok(st_writer_open(path, d, 3, NULL, 0, &w));
    ok(st_write_from(w, s, t, 0, 5));
    ok(st_write(w, data + 5, 10));
    ok(st_write_from(w, s, t, 15, 2 * BIG - 15));
    expect_and_free(st_write_from(w, s, t, 2 * BIG - 7, 8), ERR_RUNTIME, "more than there are");
    expect_and_free(st_write_from(w, s, t, 0, 9), ERR_RUNTIME, "than fit");
    ok(st_write(w, data, 8));
    assert_true(strlen(st_writer_hash(w, 0)) % 32 == 0);
    assert_int_equal(strlen(st_writer_hash(w, 2)), 32);
    ok(st_writer_close(w));
    ok(st_open(path, &copy));
    ok(st_read(copy, st_find(copy, "a"), 0, back, 2 * BIG));
    assert_memory_equal(back, data, 2 * BIG);
    ok(st_read(copy, st_find(copy, "b"), 0, back, 8));
    assert_memory_equal(back, data, 8);
    st_close(s), st_close(copy), free(path), free(data), free(back);
}

static void test_write_from(void **state) {
    check_write_from(*state, *state);
    char other[] = "/dev/shm/solar-st-XXXXXX"; // where the kernel may not copy by itself
    if (!mkdtemp(other)) {
        print_message("no /dev/shm: copies across file systems were not tested\n");
        return;
    }
    char *path = path_join(*state, "w.safetensors");
    ok(remove_tree(path));
    check_write_from(other, *state);
    ok(remove_tree(other));
    free(path);
}

static void test_write_index(void **state) {
    const char *const files[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
    one_tensor(*state, files[0], "a");
    one_tensor(*state, files[1], "b");
    ok(st_write_index(*state, files, 2));
    st_set *s = NULL;
    ok(st_open(*state, &s));
    assert_int_equal(st_count(s), 2);
    st_close(s);
    char *path = path_join(*state, "model.safetensors.index.json"), *text = NULL;
    ok(read_file(path, 1000, &text, NULL));
    assert_non_null(strstr(text, "\"total_size\": 8"));
    assert_non_null(strstr(text, "\"b\": \"model-00002-of-00002.safetensors\""));
    free(path), free(text);
    one_tensor(*state, files[1], "a");
    expect_and_free(st_write_index(*state, files, 2), ERR_INPUT, "is in both");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_hostile_headers),
        TEST(test_hostile_lengths),
        TEST(test_hostile_bulk),
        TEST(test_every_byte_and_every_cut),
        TEST(test_legal_files),
        TEST(test_good_index),
        TEST(test_bad_indexes),
        TEST(test_which_model),
        TEST(test_every_half),
        TEST(test_every_brain_float),
        TEST(test_rounding_to_nearest_even),
        TEST(test_slices),
        TEST(test_slices_out_of_range),
        TEST(test_file_cut_while_open),
        TEST(test_writer),
        TEST(test_writer_misuse),
        TEST(test_write_index),
        TEST(test_write_from),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
