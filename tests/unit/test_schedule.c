// Pipeline schedules: every action once, in an order that ends, with as many micro-batches in flight and as
// much idle time as the theory says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "schedule.h"

typedef struct pipeline {
    int pp, v, micro, n; // n actions a rank
    action **rank;
    double *done; // [kind][stage][micro] when; -1 not yet
} pipeline;

static double *when(const pipeline *l, action_kind kind, int stage, int micro) {
    return &l->done[((int)kind * l->pp * l->v + stage) * l->micro + micro];
}

static void build(pipeline *l, int pp, int v, int micro) {
    *l = (pipeline){pp, v, micro, 2 * v * micro, calloc((size_t)pp, sizeof(action *)), NULL};
    size_t cells = 2 * (size_t)(pp * v * micro);
    l->done = malloc(cells * sizeof *l->done);
    for (size_t i = 0; i < cells; i++) l->done[i] = -1;
    for (int p = 0; p < pp; p++) assert_null(schedule_make(pp, p, v, micro, &l->rank[p]));
}

static void clear(pipeline *l) {
    for (int p = 0; p < l->pp; p++) free(l->rank[p]);
    free(l->rank);
    free(l->done);
}

// When the input of an action is there; -1: not yet.
static double input(const pipeline *l, int p, const action *a) {
    int stage = a->v * l->pp + p, last = l->pp * l->v - 1;
    if (a->kind == ACT_FORWARD) return stage ? *when(l, ACT_FORWARD, stage - 1, a->micro) : 0;
    if (*when(l, ACT_FORWARD, stage, a->micro) < 0) return -1;
    return stage < last ? *when(l, ACT_BACKWARD, stage + 1, a->micro) : 0;
}

// Lets every rank work through its list; a backward takes twice as long as a forward. Returns the time taken,
// or -1 when all wait for each other.
static double simulate(const pipeline *l) {
    int *at = calloc((size_t)l->pp, sizeof *at), left = l->pp * l->n;
    double *clock = calloc((size_t)l->pp, sizeof *clock), end = 0;
    for (int moved = 1; moved && left;) {
        moved = 0;
        for (int p = 0; p < l->pp; p++)
            for (; at[p] < l->n; at[p]++, moved++, left--) {
                const action *a = &l->rank[p][at[p]];
                double from = input(l, p, a), *mine = when(l, a->kind, a->v * l->pp + p, a->micro);
                if (from < 0) break;
                assert_true(*mine < 0); // once
                clock[p] = (from > clock[p] ? from : clock[p]) + (a->kind == ACT_FORWARD ? 1.0 : 2.0) / l->v;
                *mine = clock[p];
                if (clock[p] > end) end = clock[p];
            }
    }
    free(at);
    free(clock);
    return left ? -1 : end;
}

static void test_every_schedule_ends(void **state) {
    (void)state;
    for (int pp = 1; pp <= 9; pp++)
        for (int v = 1; v <= (pp > 1 ? 4 : 1); v++)
            for (int micro = 1; micro <= 30; micro++) {
                pipeline l;
                build(&l, pp, v, micro);
                double took = simulate(&l), ideal = 3.0 * micro + 3.0 * (pp - 1) / v;
                if (took < 0) fail_msg("pp %d, v %d, %d micro-batches: a deadlock", pp, v, micro);
                if (micro >= pp || v == 1) assert_true(took <= ideal + 1e-9);
                clear(&l);
            }
}

static void test_in_flight(void **state) {
    (void)state;
    for (int pp = 1; pp <= 6; pp++)
        for (int p = 0; p < pp; p++)
            for (int micro = 1; micro <= 12; micro++) {
                action *a;
                assert_null(schedule_make(pp, p, 1, micro, &a));
                assert_int_equal(schedule_in_flight(a, 2 * micro, 0), pp - p < micro ? pp - p : micro);
                free(a);
            }
}

// Backwards of a stage come in the order of its forwards: buffers are reused in turn.
static void test_first_in_first_out(void **state) {
    (void)state;
    for (int v = 1; v <= 3; v++)
        for (int micro = 1; micro <= 17; micro++) {
            action *a;
            int next[2][3] = {{0}};
            assert_null(schedule_make(4, 1, v, micro, &a));
            for (int i = 0; i < 2 * v * micro; i++) assert_int_equal(a[i].micro, next[a[i].kind][a[i].v]++);
            free(a);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_schedule_ends),
        cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_first_in_first_out),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
