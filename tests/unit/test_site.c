// What fits a run to a site: the Spack environment names what the build needs; the preflight's judgement of
// nodes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fsutil.h"
#include "preflight.h"
#include "yaml_tree.h"

static bool has_spec(const node *specs, const char *name) {
    size_t n = strlen(name);
    for (const node *s = specs->first; s; s = s->next)
        if (s->kind == NODE_SCALAR && !strncmp(s->text, name, n) && strchr("@+~ ", s->text[n])) return true;
    return false;
}

// The fourth column of tests/setup/packages is the Spack name of each build dependency.
static void test_spack_environment(void **state) {
    (void)state;
    yaml_tree *t = NULL;
    node *root = NULL;
    char *text = NULL, *table = NULL, group[16], package[64], probe[64], name[64];
    size_t bytes;
    int lines = 0;
    assert_null(read_file("slurm/spack/spack.yaml", 1 << 16, &text, &bytes));
    assert_null(yaml_tree_new(&t));
    assert_null(yaml_tree_read(t, text, bytes, "spack.yaml", true, &root));
    const node *specs = node_at(root, "spack.specs");
    assert_non_null(specs);
    assert_int_equal(specs->kind, NODE_LIST);
    assert_null(read_file("tests/setup/packages", 1 << 16, &table, &bytes));
    for (char *line = table, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (sscanf(line, "%15s %63s %63s %63s", group, package, probe, name) != 4 ||
            strcmp(group, "build") != 0)
            continue;
        lines++;
        if (!has_spec(specs, name))
            fail_msg("slurm/spack/spack.yaml has no %s, which %s is in Spack", name, package);
    }
    assert_true(lines > 10);
    yaml_tree_free(t);
    free(text);
    free(table);
}

enum { NODES = 4 };
static const preflight_limits limits = {
    .disk = 1e9, .write = 1e6, .copy = 1e9, .net = 1e8, .clock = 1, .share = 0.5};

static void good_nodes(node_facts *all) {
    for (int i = 0; i < NODES; i++) {
        all[i] = (node_facts){
            .copy_rate = 1e10, .memory = 1e11, .disk_free = 1e12, .write_rate = 1e8, .net_rate = 1e9};
        snprintf(all[i].host, sizeof all[i].host, "n%d", i);
        snprintf(all[i].gpus, sizeof all[i].gpus, "8 x GPU");
        snprintf(all[i].versions, sizeof all[i].versions, "v1");
    }
}

// Only node 2 is judged unfit, for `reason`.
static void expect_unfit(const node_facts *all, const char *reason) {
    char why[256];
    for (int i = 0; i < NODES; i++) {
        preflight_judge(all, NODES, i, &limits, why);
        if (i != 2 && *why) fail_msg("node %d: %s", i, why);
        if (i == 2 && !strstr(why, reason)) fail_msg("expected %s, found \"%s\"", reason, why);
    }
}

static void test_judgement(void **state) {
    (void)state;
    node_facts all[NODES], *bad = &all[2];
    char why[256];
    good_nodes(all);
    for (int i = 0; i < NODES; i++) {
        preflight_judge(all, NODES, i, &limits, why);
        assert_string_equal(why, "");
    }
    snprintf(bad->gpus, sizeof bad->gpus, "7 x GPU");
    expect_unfit(all, "GPUs: 7 x GPU, most nodes have 8 x GPU");
    good_nodes(all);
    snprintf(bad->gpu_fault, sizeof bad->gpu_fault, "GPU 3 has 1 uncorrected memory errors");
    expect_unfit(all, "GPU 3");
    good_nodes(all);
    snprintf(bad->versions, sizeof bad->versions, "v2");
    expect_unfit(all, "versions: v2");
    good_nodes(all);
    bad->disk_free = 1e8;
    expect_unfit(all, "disk: 0.1 GB free");
    good_nodes(all);
    bad->write_rate = 1e5;
    expect_unfit(all, "disk: 0.1 MB/s");
    good_nodes(all);
    bad->clock_offset = -3;
    expect_unfit(all, "clock: -3");
    good_nodes(all);
    bad->copy_rate = 4e9; // above the floor, below half of the others
    expect_unfit(all, "memory: 4e+03 MB/s, expected at least 5e+03");
    good_nodes(all);
    bad->net_rate = 4e8;
    expect_unfit(all, "network: 400 MB/s");
    good_nodes(all);
    snprintf(bad->fault, sizeof bad->fault, "writing at the run directory: No space left on device");
    expect_unfit(all, "No space left");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spack_environment),
        cmocka_unit_test(test_judgement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
