// Depth plans: SOLAR's form for every n and m, ranges, seams, text, and refusals.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "depth.h"

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void expect(err *e, const char *part) {
    assert_int_equal(err_get_code(e), ERR_CONFIG);
    if (!strstr(err_text(e), part)) fail_msg("'%s' is not in '%s'", part, err_text(e));
    err_free(e);
}

static void test_solar(void **state) {
    (void)state;
    depth_plan *p = NULL;
    ok(depth_from_m(32, 8, &p));
    assert_int_equal(p->base_layers, 32);
    assert_int_equal(p->layers, 48);
    assert_int_equal(p->seams, 1);
    assert_int_equal(p->seam[0], 24);
    assert_int_equal(p->donor[23], 23);
    assert_int_equal(p->donor[24], 8);
    assert_int_equal(p->donor[47], 31);
    assert_false(p->identity);
    char *text = depth_text(p);
    assert_string_equal(text, "0-23,8-31");
    free(text);
    depth_free(p);
}

static void check_m(int n, int m) {
    depth_plan *p = NULL, *q = NULL;
    ok(depth_from_m(n, m, &p));
    int half = n - m;
    assert_int_equal(p->layers, 2 * half);
    for (int i = 0; i < half; i++) {
        assert_int_equal(p->donor[i], i);
        assert_int_equal(p->donor[half + i], m + i);
    }
    // 2m = n: layer n-m-1 is followed by layer m = n-m, so there is no jump and the plan is the base
    bool joined = 2 * m == n;
    assert_int_equal(p->seams, joined ? 0 : 1);
    assert_true(p->identity == joined);
    if (!joined) assert_int_equal(p->seam[0], half);
    char *text = depth_text(p);
    ok(depth_from_ranges(n, text, &q));
    assert_int_equal(q->layers, p->layers);
    assert_memory_equal(q->donor, p->donor, sizeof(int) * (size_t)p->layers);
    free(text);
    depth_free(p);
    depth_free(q);
}

static void test_every_m(void **state) {
    (void)state;
    for (int n = 1; n <= 40; n++)
        for (int m = 0; m < n; m++) check_m(n, m);
}

static void test_m_out_of_range(void **state) {
    (void)state;
    depth_plan *p = NULL;
    expect(depth_from_m(8, 8, &p), "m must be 0 to 7");
    expect(depth_from_m(8, -1, &p), "m must be 0 to 7");
    expect(depth_from_m(0, 0, &p), "0 layers");
    expect(depth_from_m(1 << 30, 0, &p), "cannot be deepened");
    assert_null(p);
}

static void test_ranges(void **state) {
    (void)state;
    const struct {
        const char *text, *back;
        int layers, seams, donor[8];
    } cases[] = {
        {"0-3", "0-3", 4, 0, {0, 1, 2, 3}},
        {" 0 - 2 , 1 ", "0-2,1", 4, 1, {0, 1, 2, 1}},
        {"0,1,2,2,3", "0-2,2-3", 5, 1, {0, 1, 2, 2, 3}},
        {"4,3,2", "4,3,2", 3, 2, {4, 3, 2}},
        {"1-1", "1", 1, 0, {1}},
        {"0-1,2-3", "0-3", 4, 0, {0, 1, 2, 3}},
        {"0,1,3,4", "0-1,3-4", 4, 1, {0, 1, 3, 4}},
        {"0-4,0-2", "0-4,0-2", 8, 1, {0, 1, 2, 3, 4, 0, 1, 2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        depth_plan *p = NULL;
        ok(depth_from_ranges(5, cases[i].text, &p));
        assert_int_equal(p->layers, cases[i].layers);
        assert_int_equal(p->seams, cases[i].seams);
        assert_memory_equal(p->donor, cases[i].donor, sizeof(int) * (size_t)p->layers);
        char *text = depth_text(p);
        assert_string_equal(text, cases[i].back);
        free(text);
        depth_free(p);
    }
}

static void test_bad_ranges(void **state) {
    (void)state;
    const struct {
        const char *text, *why;
    } cases[] = {
        {"", "no layer number"},      {"a", "in 'a': found no layer"},
        {"0-", "behind '-'"},         {"3-1", "runs backwards"},
        {"0-5", "no such layer"},     {"0,,1", "no layer number"},
        {"0-3,", "last comma"},       {"0-3, ", "last comma"},
        {"0-3;4", "characters"},      {"-1", "no layer number"},
        {"0-2-4", "characters"},      {"99999999999999999999", "no such layer"},
        {"0x1", "characters behind"}, {"0-3,2-9", "in '2-9': the base model has no such layer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        depth_plan *p = NULL;
        expect(depth_from_ranges(5, cases[i].text, &p), cases[i].why);
        assert_null(p);
    }
}

static void test_too_many_layers(void **state) {
    (void)state;
    enum { PARTS = 20000 };
    char *text = malloc(PARTS * 4 + 1), *end = text;
    for (int i = 0; i < PARTS; i++) end = stpcpy(end, i ? ",0-4" : "0-4");
    depth_plan *p = NULL;
    expect(depth_from_ranges(5, text, &p), "more than 65536 layers");
    free(text);
}

static void test_identity(void **state) {
    (void)state;
    depth_plan *p = NULL;
    ok(depth_identity(5, &p));
    assert_true(p->identity);
    assert_int_equal(p->layers, 5);
    assert_int_equal(p->seams, 0);
    depth_free(p);
    p = NULL;
    ok(depth_from_ranges(5, "0-4", &p));
    assert_true(p->identity);
    depth_free(p);
    p = NULL;
    ok(depth_from_ranges(5, "0-3", &p));
    assert_false(p->identity);
    depth_free(p);
    depth_free(NULL);
}

// ---- new layers

static depth_plan *made(int n, depth_ask ask, const char *text) {
    depth_plan *p = NULL, *again = NULL;
    ok(depth_make(n, &ask, &p));
    char *back = depth_text(p);
    assert_string_equal(back, text);
    ok(depth_from_ranges(n, back, &again)); // the text says all there is
    assert_int_equal(again->layers, p->layers);
    assert_int_equal(again->fresh, p->fresh);
    assert_int_equal(again->seams, p->seams);
    assert_true(again->identity == p->identity);
    assert_memory_equal(again->donor, p->donor, sizeof *p->donor * (size_t)p->layers);
    assert_memory_equal(again->init, p->init, sizeof *p->init * (size_t)p->layers);
    free(back);
    depth_free(again);
    return p;
}

static void test_inserted(void **state) {
    (void)state;
    const struct {
        depth_ask ask;
        const char *text;
        int fresh, seams;
    } cases[] = {
        {{.m = -1, .every = 4}, "0-3,3z,4-7,7z", 2, 0},
        {{.m = -1, .every = 3}, "0-2,2z,3-5,5z,6-7", 2, 0},
        {{.m = -1, .every = 8, .init = "copy"}, "0-7,7c", 1, 0},
        {{.m = -1, .every = 1, .init = "zero_out"}, "0,0z,1,1z,2,2z,3,3z,4,4z,5,5z,6,6z,7,7z", 8, 0},
        {{.m = -1, .after = "1,5,5"}, "0-1,1z,2-5,5z,5z,6-7", 3, 0},
        {{.m = -1, .after = " 0 - 1 "}, "0,0z,1,1z,2-7", 2, 0},
        {{.m = 2, .every = 6}, "0-5,5z,2-7,7z", 2, 1},
        {{.m = -1, .layers = "0-3,2-7", .after = "3"}, "0-3,3z,2-7", 1, 1},
        {{.m = -1, .layers = "0-3,3z,4-7"}, "0-3,3z,4-7", 1, 0},
        {{.m = -1, .layers = "0-3,2-3z,4-7"}, "0-3,2-3z,4-7", 2, 0},
        {{.m = -1, .layers = "0z, 0-6 ,7 c"}, "0z,0-6,7c", 2, 0},
        {{.m = -1, .layers = "0-1,2z,3-7"}, "0-1,2z,3-7", 1, 1}, // 2 itself is gone
        {{.m = -1}, "0-7", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        depth_plan *p = made(8, cases[i].ask, cases[i].text);
        assert_int_equal(p->fresh, cases[i].fresh);
        assert_int_equal(p->seams, cases[i].seams);
        assert_true(p->identity == (cases[i].fresh == 0 && cases[i].seams == 0));
        depth_free(p);
    }
    depth_plan *p = made(8, (depth_ask){.m = 2, .every = 6}, "0-5,5z,2-7,7z");
    assert_int_equal(p->seam[0], 7); // in front of the kept layer, not of the new one
    assert_int_equal(depth_run_end(p, 0), 6);
    assert_int_equal(depth_run_end(p, 6), 7);
    assert_int_equal(depth_run_end(p, 7), 13);
    depth_free(p);
}

static void test_bad_inserts(void **state) {
    (void)state;
    const struct {
        depth_ask ask;
        const char *why;
    } cases[] = {
        {{.m = 1, .layers = "0"}, "m and layers are both given"},
        {{.m = -1, .every = 2, .after = "1"}, "every and after are both given"},
        {{.m = -1, .init = "copy"}, "init is given without"},
        {{.m = -1, .every = 2, .init = "ones"}, "neither zero_out nor copy"},
        {{.m = -1, .every = 9}, "every 9 of 8 layers is none"},
        {{.m = 2, .every = 13}, "every 13 of 12 layers is none"},
        {{.m = -1, .after = "8"}, "insert after: in '8': the plan has no such layer"},
        {{.m = -1, .after = "1z"}, "insert after: in '1z': found characters"},
        {{.m = -1, .after = ""}, "found no layer number"},
        {{.m = -1, .layers = "0zz"}, "found characters behind"},
        {{.m = -1, .layers = "z"}, "found no layer number"},
        {{.m = -1, .layers = "0x"}, "with z (zero output) or c (copy)"},
        {{.m = 1 << 30}, "m must be 0 to 7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        depth_plan *p = NULL;
        expect(depth_make(8, &cases[i].ask, &p), cases[i].why);
        assert_null(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_solar),          cmocka_unit_test(test_every_m),
        cmocka_unit_test(test_m_out_of_range), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_bad_ranges),     cmocka_unit_test(test_too_many_layers),
        cmocka_unit_test(test_identity),       cmocka_unit_test(test_inserted),
        cmocka_unit_test(test_bad_inserts),
    };
    return cmocka_run_group_tests_name("depth", tests, NULL, NULL);
}
