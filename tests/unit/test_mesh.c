// The grid of ranks, and layouts: every layer once, seams on boundaries, stages as equal as can be.
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh.h"

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void expect(err *e, const char *part) {
    assert_int_equal(err_get_code(e), ERR_CONFIG);
    if (!strstr(err_text(e), part)) fail_msg("'%s' is not in '%s'", part, err_text(e));
    err_free(e);
}

static void test_every_rank_has_its_place(void **state) {
    (void)state;
    for (int pp = 1; pp <= 4; pp++)
        for (int tp = 1; tp <= 4; tp++)
            for (int dp = 1; dp <= 3; dp++)
                for (int r = 0, world = pp * tp * dp; r < world; r++) {
                    mesh m;
                    ok(mesh_make(world, r, pp, tp, MESH_TDP, &m));
                    assert_int_equal(m.dp, dp);
                    assert_int_equal(mesh_rank(&m, m.d, m.p, m.t), r);
                    assert_int_equal((m.p * dp + m.d) * tp + m.t, r);
                    assert_true(m.d < dp && m.p < pp && m.t < tp && m.d >= 0 && m.p >= 0 && m.t >= 0);
                }
}

static void test_orders(void **state) {
    (void)state;
    for (mesh_order o = MESH_TDP; o <= MESH_PDT; o++)
        for (int r = 0; r < 24; r++) {
            mesh m;
            ok(mesh_make(24, r, 3, 2, o, &m));
            assert_int_equal(mesh_rank(&m, m.d, m.p, m.t), r);
            bool t = o == MESH_TDP || o == MESH_TPD, d = o == MESH_DTP || o == MESH_DPT;
            assert_int_equal(t ? m.t : d ? m.d : m.p, t ? r % 2 : d ? r % 4 : r % 3); // the innermost
        }
    mesh m;
    ok(mesh_make(24, 23, 3, 2, MESH_DPT, &m));
    assert_true(m.d == 3 && m.p == 2 && m.t == 1);
    ok(mesh_make(24, 5, 3, 2, MESH_DPT, &m));
    assert_true(m.d == 1 && m.p == 1 && m.t == 0);
}

static void test_bad_meshes(void **state) {
    (void)state;
    mesh m;
    expect(mesh_make(6, 0, 2, 2, MESH_TDP, &m), "multiple of 4");
    expect(mesh_make(4, 0, 0, 1, MESH_TDP, &m), "at least 1");
    expect(mesh_make(4, 0, 1, -1, MESH_TDP, &m), "at least 1");
    expect(mesh_make(4, 0, 65536, 65536, MESH_TDP, &m), "multiple of 4294967296");
}

static void check_stages(const char *ranges, int pp, const char *expected) {
    depth_plan *p = NULL;
    layout *l = NULL;
    char got[256] = "";
    ok(depth_from_ranges(100, ranges, &p));
    ok(layout_make(p, &(layout_shape){.pp = pp, .interleave = 1}, &l));
    for (int i = 0, n = 0; i < pp; i++)
        n += snprintf(got + n, sizeof got - (size_t)n, "%s%d", i ? "|" : "", l->first[i + 1] - l->first[i]);
    if (strcmp(got, expected)) fail_msg("%s on %d stages: %s, expected %s", ranges, pp, got, expected);
    layout_free(l);
    depth_free(p);
}

static void test_known_layouts(void **state) {
    (void)state;
    check_stages("0-23,8-31", 1, "48");
    check_stages("0-23,8-31", 2, "24|24");
    check_stages("0-23,8-31", 4, "12|12|12|12");
    check_stages("0-23,8-31", 8, "6|6|6|6|6|6|6|6");
    check_stages("0-3,1-4", 3, "4|2|2");
    check_stages("0-3,1-4", 8, "1|1|1|1|1|1|1|1");
    check_stages("0-7", 3, "3|3|2");
    check_stages("0-9,0-1", 3, "5|5|2");
    check_stages("0-4,0-4", 4, "3|2|3|2");
    check_stages("0-3,2-5,4-7", 2, "8|4");
    check_stages("0-1,1-8,8-9", 2, "10|2");
    check_stages("0,0,0,0,0", 2, "3|2");
    check_stages("0,0,0,0,0", 5, "1|1|1|1|1");
}

typedef struct search {
    const depth_plan *plan;
    int pp, most_seams, best; // best: smallest largest stage among those with most_seams on boundaries
} search;

static bool is_seam(const depth_plan *p, int layer) {
    for (int i = 0; i < p->seams; i++)
        if (p->seam[i] == layer) return true;
    return false;
}

// All ways to cut the rest of the layers.
static void try_all(search *s, int stage, int start, int seams, int largest) {
    if (stage == s->pp - 1) {
        int last = s->plan->layers - start;
        if (last > largest) largest = last;
        if (seams > s->most_seams) s->most_seams = seams, s->best = INT_MAX;
        if (seams == s->most_seams && largest < s->best) s->best = largest;
        return;
    }
    for (int next = start + 1; next <= s->plan->layers - (s->pp - 1 - stage); next++)
        try_all(s, stage + 1, next, seams + is_seam(s->plan, next),
                next - start > largest ? next - start : largest);
}

static void check_against_search(const depth_plan *p, int pp) {
    layout *l = NULL;
    ok(layout_make(p, &(layout_shape){.pp = pp, .interleave = 1}, &l));
    int largest = 0, seams = 0;
    assert_int_equal(l->first[0], 0);
    assert_int_equal(l->first[pp], p->layers);
    for (int i = 0; i < pp; i++) {
        int size = l->first[i + 1] - l->first[i];
        assert_true(size >= 1);
        if (size > largest) largest = size;
        if (i > 0) seams += is_seam(p, l->first[i]);
    }
    for (int layer = 0; layer < p->layers; layer++) {
        int stage = layout_stage(l, layer);
        assert_true(l->first[stage] <= layer && layer < l->first[stage + 1]);
    }
    search s = {.plan = p, .pp = pp, .most_seams = -1, .best = INT_MAX};
    try_all(&s, 0, 0, 0, 0);
    assert_int_equal(seams, s.most_seams);
    assert_int_equal(largest, s.best);
    layout_free(l);
}

static void test_layouts_are_the_best(void **state) {
    (void)state;
    static const char *const plans[] = {"0-9",       "0-5,2-7",     "0-8,1",
                                        "0,1-9",     "0-2,1-3,2-5", "0-1,0-4,3-5",
                                        "0,0,0,1-6", "5,4,3,2,1,0", "0-3,3,3,4-7,0-1"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        depth_plan *p = NULL;
        ok(depth_from_ranges(10, plans[i], &p));
        for (int pp = 1; pp <= p->layers && pp <= 7; pp++) check_against_search(p, pp);
        depth_free(p);
    }
}

static void test_halves_are_balanced(void **state) {
    (void)state;
    for (int n = 2; n <= 20; n++)
        for (int pp = 2; pp <= 2 * (n - 1); pp++) {
            depth_plan *p = NULL;
            layout *l = NULL;
            ok(depth_from_m(n, 1, &p));
            ok(layout_make(p, &(layout_shape){.pp = pp, .interleave = 1}, &l));
            for (int half = 0; half < 2 && p->seams == 1; half++) {
                int low = INT_MAX, high = 0;
                for (int i = 0; i < pp; i++) {
                    if ((l->first[i] >= p->seam[0]) != half) continue;
                    int size = l->first[i + 1] - l->first[i];
                    low = size < low ? size : low;
                    high = size > high ? size : high;
                }
                assert_true(high - low <= 1);
            }
            layout_free(l);
            depth_free(p);
        }
}

static void test_explicit_counts(void **state) {
    (void)state;
    depth_plan *p = NULL;
    layout *l = NULL;
    ok(depth_from_m(5, 1, &p));
    ok(layout_make(
        p, &(layout_shape){.pp = 3, .interleave = 1, .counts = (int64_t[]){5, 1, 2}, .seam_inside = true},
        &l));
    assert_memory_equal(l->first, ((int[]){0, 5, 6, 8}), 4 * sizeof(int));
    assert_int_equal(layout_stage(l, 5), 1);
    layout_free(l);
    l = NULL;
    expect(layout_make(
               p,
               &(layout_shape){.pp = 3, .interleave = 1, .counts = (int64_t[]){5, 1, 1}, .seam_inside = true},
               &l),
           "add up to 7, the model has 8");
    expect(layout_make(
               p,
               &(layout_shape){.pp = 3, .interleave = 1, .counts = (int64_t[]){5, 4, 1}, .seam_inside = true},
               &l),
           "at least 9");
    expect(layout_make(
               p,
               &(layout_shape){.pp = 3, .interleave = 1, .counts = (int64_t[]){8, 0, 0}, .seam_inside = true},
               &l),
           "stage 1 has 0 layers");
    expect(layout_make(
               p,
               &(layout_shape){
                   .pp = 2, .interleave = 1, .counts = (int64_t[]){INT_MAX, INT_MAX}, .seam_inside = true},
               &l),
           "at least 2147483647");
    expect(layout_make(p, &(layout_shape){.pp = 9, .interleave = 1}, &l), "at most 8");
    expect(layout_make(p, &(layout_shape){.pp = 0, .interleave = 1}, &l), "at least 1");
    assert_null(l);
    depth_free(p);
    layout_free(NULL);
}

// With interleaving rank p holds virtual stages p, p+pp, ...; the seam lies on the boundary of two.
static void test_virtual_stages(void **state) {
    (void)state;
    depth_plan *p = NULL;
    layout *l = NULL;
    ok(depth_from_m(32, 8, &p));
    ok(layout_make(p, &(layout_shape){.pp = 4, .interleave = 3}, &l));
    assert_int_equal(l->stages, 12);
    assert_int_equal(l->ranks, 4);
    for (int i = 0; i < 48; i++) {
        assert_int_equal(layout_stage(l, i), i / 4);
        assert_int_equal(layout_rank(l, i), i / 4 % 4);
    }
    layout_free(l);
    l = NULL;
    expect(layout_make(p, &(layout_shape){.pp = 1, .interleave = 2}, &l), "interleaving needs a pipeline");
    expect(layout_make(p, &(layout_shape){.pp = 7, .interleave = 7}, &l), "at most 48");
    assert_null(l);
    depth_free(p);
}

// The head weighs as so many layers, and the last stage gets fewer of them.
static void test_head_is_weighed(void **state) {
    (void)state;
    depth_plan *p = NULL;
    layout *l = NULL;
    ok(depth_identity(12, &p));
    ok(layout_make(p, &(layout_shape){.pp = 3, .interleave = 1, .head_cost = 3}, &l));
    assert_memory_equal(l->first, ((int[]){0, 5, 10, 12}), 4 * sizeof(int));
    layout_free(l);
    ok(layout_make(p, &(layout_shape){.pp = 3, .interleave = 1, .head_cost = 0.5}, &l));
    assert_memory_equal(l->first, ((int[]){0, 4, 8, 12}), 4 * sizeof(int));
    layout_free(l);
    depth_free(p);
    ok(depth_from_m(8, 2, &p)); // halves of 6: the head may not pull the seam off its boundary
    ok(layout_make(p, &(layout_shape){.pp = 2, .interleave = 1, .head_cost = 4}, &l));
    assert_memory_equal(l->first, ((int[]){0, 6, 12}), 3 * sizeof(int));
    layout_free(l);
    depth_free(p);
}

static void test_seam_inside_is_refused(void **state) {
    (void)state;
    depth_plan *p = NULL;
    layout *l = NULL;
    ok(depth_from_m(8, 2, &p));
    expect(layout_make(p, &(layout_shape){.pp = 2, .interleave = 1, .counts = (int64_t[]){5, 7}}, &l),
           "in front of layer 6");
    ok(layout_make(p, &(layout_shape){.pp = 2, .interleave = 1, .counts = (int64_t[]){6, 6}}, &l));
    layout_free(l);
    depth_free(p);
    ok(depth_from_ranges(8, "0-3,0-3,0-3", &p)); // one boundary, two seams: one may stay inside
    ok(layout_make(p, &(layout_shape){.pp = 2, .interleave = 1, .counts = (int64_t[]){8, 4}}, &l));
    layout_free(l);
    depth_free(p);
}

static void check_first(int last, const int *first, const char *part) {
    depth_plan *p = NULL;
    int copy[5];
    memcpy(copy, first, sizeof copy);
    layout l = {.stages = 4, .ranks = 4, .layers = 6, .first = copy};
    copy[4] = last;
    ok(depth_from_m(4, 1, &p));
    if (part)
        expect(layout_check(p, &l), part);
    else
        ok(layout_check(p, &l));
    depth_free(p);
}

// Whoever makes a layout: a layer dropped, on two stages or out of order does not pass.
static void test_wrong_layouts_are_caught(void **state) {
    (void)state;
    check_first(6, (int[]){0, 1, 3, 5, 0}, NULL);
    check_first(6, (int[]){1, 2, 3, 5, 0}, "layers 0-0 are on no stage");
    check_first(5, (int[]){0, 1, 3, 4, 0}, "stages hold layers up to 4, the model has 6");
    check_first(7, (int[]){0, 1, 3, 5, 0}, "stages hold layers up to 6");
    check_first(6, (int[]){0, 3, 2, 5, 0}, "stage 2 begins at layer 2, before stage 1");
    check_first(6, (int[]){0, 1, 1, 5, 0}, "stage 1 has no layers");
    check_first(6, (int[]){0, 3, 2, 5, 0}, "stage 0: layers 0-2 (donors 0-2) -- seam --");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rank_has_its_place),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_bad_meshes),
        cmocka_unit_test(test_virtual_stages),
        cmocka_unit_test(test_head_is_weighed),
        cmocka_unit_test(test_seam_inside_is_refused),
        cmocka_unit_test(test_known_layouts),
        cmocka_unit_test(test_layouts_are_the_best),
        cmocka_unit_test(test_halves_are_balanced),
        cmocka_unit_test(test_explicit_counts),
        cmocka_unit_test(test_wrong_layouts_are_caught),
    };
    return cmocka_run_group_tests_name("mesh", tests, NULL, NULL);
}
