// The guard: what makes a step bad, what is remembered, and that it goes on from where it was.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "guard.h"

static void feed(guard *g, int n) {
    for (int i = 0; i < n; i++)
        assert_int_equal(guard_judge(g, 2.0 + 0.01 * (i % 3), 1.0 + 0.05 * (i % 4)), STEP_GOOD);
}

static void not_finite(void **state) {
    (void)state;
    guard g = {.sigma = 0, .window = 8};
    assert_int_equal(guard_judge(&g, NAN, 1), STEP_NOT_FINITE);
    assert_int_equal(guard_judge(&g, 1, INFINITY), STEP_NOT_FINITE);
    assert_int_equal(guard_judge(NULL, -INFINITY, 1), STEP_NOT_FINITE);
    assert_int_equal(guard_judge(NULL, 1e30, 1e30), STEP_GOOD);
    assert_int_equal(guard_judge(&g, 1e30, 1e30), STEP_GOOD);
    assert_int_equal(g.count, 0);
}

static void spikes(void **state) {
    (void)state;
    guard g = {.sigma = 6, .window = 16};
    assert_int_equal(guard_judge(&g, 2.0, 1.0), STEP_GOOD);
    assert_int_equal(guard_judge(&g, 50.0, 1.0), STEP_GOOD); // the window is not full yet
    g.count = 0;
    feed(&g, 40);
    assert_int_equal(g.count, 16);
    assert_int_equal(guard_judge(&g, 2.2, 1.0), STEP_LOSS_SPIKE);
    assert_int_equal(guard_judge(&g, 2.0, 9.0), STEP_NORM_SPIKE);
    assert_int_equal(guard_judge(&g, NAN, 1.0), STEP_NOT_FINITE);
    assert_int_equal(guard_judge(&g, 0.5, 0.1), STEP_GOOD); // falling is no spike
    feed(&g, 20);                                           // bad steps were not remembered
    assert_int_equal(guard_judge(&g, 2.2, 1.0), STEP_LOSS_SPIKE);
}

static void flat_stretch(void **state) {
    (void)state;
    guard g = {.sigma = 3, .window = 4};
    for (int i = 0; i < 8; i++) assert_int_equal(guard_judge(&g, 2.0, 1.0), STEP_GOOD);
    assert_int_equal(guard_judge(&g, 2.005, 1.0), STEP_GOOD); // within 3 thousandths
    assert_int_equal(guard_judge(&g, 2.1, 1.0), STEP_LOSS_SPIKE);
}

static void shorter_window(void **state) {
    (void)state;
    guard g = {.sigma = 6, .window = 16};
    feed(&g, 16);
    double last = g.loss[15];
    guard_set(&g, 4, 5);
    assert_int_equal(g.count, 5);
    assert_true(g.loss[4] == last);
    feed(&g, 3);
    assert_int_equal(g.count, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(not_finite), cmocka_unit_test(spikes),
                                       cmocka_unit_test(flat_stretch), cmocka_unit_test(shorter_window)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
