// Errors: codes, context, ownership; and the figures that messages print.
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "err.h"
#include "log.h"

static void test_null_is_success(void **state) {
    (void)state;
    assert_int_equal(err_get_code(NULL), ERR_OK);
    assert_string_equal(err_text(NULL), "");
    assert_null(err_wrap(NULL, "context %d", 1));
    assert_null(err_first(NULL, NULL));
    err_free(NULL);
}

static void test_message_and_context(void **state) {
    (void)state;
    err *e = err_new(ERR_INPUT, "found %d, expected %s", 7, "8");
    assert_int_equal(err_get_code(e), ERR_INPUT);
    assert_string_equal(err_text(e), "found 7, expected 8");
    e = err_wrap(e, "tensor %s", "a.b");
    e = err_wrap(e, "loading %s", "x");
    assert_string_equal(err_text(e), "loading x: tensor a.b: found 7, expected 8");
    assert_int_equal(err_get_code(e), ERR_INPUT);
    err_free(e);
}

static void test_long_message_is_whole(void **state) {
    (void)state;
    char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    err *e = err_new(ERR_RUNTIME, "%s", long_text);
    assert_string_equal(err_text(e), long_text);
    err_free(e);
}

static void test_no_escape_sequence_gets_through(void **state) {
    (void)state;
    err *e = err_wrap(err_new(ERR_INPUT, "tensor \033[2Ja\n\xc3\xa9"), "file \r%c", 127);
    assert_string_equal(err_text(e), "file ??: tensor ?[2Ja\n\xc3\xa9");
    err_free(e);
}

static void test_errno_text(void **state) {
    (void)state;
    err *e = err_errno(ENOENT, "cannot open %s", "f");
    assert_int_equal(err_get_code(e), ERR_SYSTEM);
    assert_string_equal(err_text(e), "cannot open f: No such file or directory");
    err_free(e);
}

static void test_first_keeps_the_first(void **state) {
    (void)state;
    err *e = err_first(err_new(ERR_INPUT, "one"), err_new(ERR_SYSTEM, "two"));
    assert_string_equal(err_text(e), "one");
    err_free(e);
    e = err_first(NULL, err_new(ERR_SYSTEM, "two"));
    assert_string_equal(err_text(e), "two");
    err_free(e);
}

static err *step(int *left) { return (*left)-- > 0 ? NULL : err_new(ERR_USAGE, "no more"); }

static err *two_steps(int *left, int *cleaned) {
    err *e = NULL;
    TRY(step(left));
    TRY(step(left));
    if (*left == 0) FAIL(ERR_CONFIG, "none left over");
done:
    ++*cleaned;
    return err_wrap(e, "two steps");
}

static void test_try_cleans_up(void **state) {
    (void)state;
    const struct {
        int left;
        const char *text;
        err_code code;
    } cases[] = {
        {3, "", ERR_OK}, {1, "two steps: no more", ERR_USAGE}, {2, "two steps: none left over", ERR_CONFIG}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int left = cases[i].left, cleaned = 0;
        err *e = two_steps(&left, &cleaned);
        assert_string_equal(err_text(e), cases[i].text);
        assert_int_equal(err_get_code(e), cases[i].code);
        assert_int_equal(cleaned, 1);
        err_free(e);
    }
}

static void test_format_figures(void **state) {
    (void)state;
    const struct {
        double bytes;
        const char *text;
    } sizes[] = {
        {0, "0 B"}, {1023, "1023 B"}, {1536, "1.50 KiB"}, {5e9, "4.66 GiB"}, {1e30, "867361737988.40 EiB"}};
    const struct {
        double seconds;
        const char *text;
    } times[] = {{0, "0.0s"},     {12.34, "12.3s"},  {59.96, "1m00s"}, {200, "3m20s"},
                 {3720, "1h02m"}, {3599.8, "1h00m"}, {NAN, "?"},       {-1, "?"}};
    char out[32];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        format_bytes(out, sizes[i].bytes);
        assert_string_equal(out, sizes[i].text);
    }
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        format_time(out, times[i].seconds);
        assert_string_equal(out, times[i].text);
    }
}

static void test_clock_moves_forward(void **state) {
    (void)state;
    double a = now_seconds(), b = now_seconds();
    assert_true(b >= a && a > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_is_success),
        cmocka_unit_test(test_message_and_context),
        cmocka_unit_test(test_long_message_is_whole),
        cmocka_unit_test(test_errno_text),
        cmocka_unit_test(test_no_escape_sequence_gets_through),
        cmocka_unit_test(test_first_keeps_the_first),
        cmocka_unit_test(test_try_cleans_up),
        cmocka_unit_test(test_format_figures),
        cmocka_unit_test(test_clock_moves_forward),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
