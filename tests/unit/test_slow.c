// Slow ranks: found among their peers, with the phase they lose most in; nobody when all are alike.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "slow.h"

static void alike(step_vote *v, const mesh *m) {
    for (int r = 0; r < m->world; r++) {
        v[r] = (step_vote){0};
        mesh at;
        assert_null(mesh_make(m->world, r, m->pp, m->tp, m->order, &at));
        for (int k = 1; k < PHASES; k++) v[r].busy[k] = (float)(1 + at.p); // stages differ, peers do not
        if (at.p == 0) v[r].busy[PHASE_DATA] = 100; // waiting for a disk is not slow work
    }
}

static void test_slow(void **state) {
    (void)state;
    mesh m;
    slow_watch w;
    step_vote v[8] = {{0}};
    assert_null(mesh_make(8, 0, 2, 2, MESH_PTD, &m));
    assert_null(slow_open(8, &w));
    assert_int_equal(slow_find(&w, &m, 1.5).rank, -1); // nothing noted
    alike(v, &m);
    for (int i = 0; i < 3; i++) slow_note(&w, v);
    assert_int_equal(slow_find(&w, &m, 1.01).rank, -1);
    v[5].busy[PHASE_BACKWARD] *= 4;
    v[5].busy[PHASE_UPDATE] *= 2;
    for (int i = 0; i < 3; i++) slow_note(&w, v);
    slow_rank s = slow_find(&w, &m, 1.5);
    assert_int_equal(s.rank, 5);
    assert_int_equal(s.phase, PHASE_BACKWARD);
    assert_true(s.seconds == 4 * s.median && s.times == 2);
    slow_note(&w, v);
    assert_int_equal(slow_find(&w, &m, 2.5).rank, -1);
    slow_note(&w, v);
    assert_int_equal(slow_find(&w, &m, 0).rank, -1); // off
    slow_close(&w);
}

static void test_nobody_to_compare_with(void **state) {
    (void)state;
    mesh m;
    slow_watch w;
    step_vote v[4] = {{0}};
    assert_null(mesh_make(4, 0, 4, 1, MESH_TDP, &m));
    assert_null(slow_open(4, &w));
    v[2].busy[PHASE_FORWARD] = 9;
    slow_note(&w, v);
    assert_int_equal(slow_find(&w, &m, 1.5).rank, -1);
    slow_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_nobody_to_compare_with),
    };
    return cmocka_run_group_tests_name("slow", tests, NULL, NULL);
}
