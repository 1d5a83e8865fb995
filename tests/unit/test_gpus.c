// What is made of the GPUs that the ranks of a job tell of, and of the CPUs near one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gpus.h"

enum { RANKS = 4 };

static void make_gpus(rank_gpu all[RANKS]) {
    memset(all, 0, RANKS * sizeof *all);
    for (int r = 0; r < RANKS; r++) {
        all[r].gpu = true;
        snprintf(all[r].host, sizeof all[r].host, "n%d", r / 2);
        snprintf(all[r].info.name, sizeof all[r].info.name, "H200");
        all[r].info.memory = (uint64_t)141 << 30;
        all[r].info.uuid[0] = (unsigned char)(r % 2 + 1); // the hosts tell two apart
        all[r].info.health = GPU_GOOD;
    }
}

static void refuses(const rank_gpu *all, const char *transport, bool nccl, err_code code, const char *words) {
    bool linked = true;
    err *e = gpus_judge(all, RANKS, transport, nccl, &linked);
    assert_int_equal(err_get_code(e), code);
    if (!strstr(err_text(e), words)) fail_msg("'%s' is not in: %s", words, err_text(e));
    assert_false(linked);
    err_free(e);
}

static bool links(const rank_gpu *all, int n, const char *transport, bool nccl) {
    bool linked = !nccl;
    assert_null(gpus_judge(all, n, transport, nccl, &linked));
    return linked;
}

static void test_transport(void **state) {
    (void)state;
    rank_gpu all[RANKS];
    make_gpus(all);
    assert_true(links(all, RANKS, "auto", true));
    assert_true(links(all, RANKS, "nccl", true));
    assert_false(links(all, RANKS, "mpi", true));
    assert_false(links(all, RANKS, "auto", false));
    assert_false(links(all, 1, "auto", true)); // nobody to link with
    refuses(all, "nccl", false, ERR_CONFIG, "without NCCL");
}

static void test_shared(void **state) {
    (void)state;
    rank_gpu all[RANKS];
    make_gpus(all);
    all[3].info.uuid[0] = all[2].info.uuid[0];
    assert_false(links(all, RANKS, "auto", true));
    refuses(all, "nccl", true, ERR_CONFIG, "rank 3 shares");
}

static void test_cpus(void **state) {
    (void)state;
    rank_gpu all[RANKS];
    make_gpus(all);
    for (int r = 0; r < RANKS; r++) all[r].gpu = false;
    assert_false(links(all, RANKS, "auto", true));
    refuses(all, "nccl", true, ERR_CONFIG, "CPUs");
}

static void test_mixed(void **state) {
    (void)state;
    rank_gpu all[RANKS];
    make_gpus(all);
    snprintf(all[2].info.name, sizeof all[2].info.name, "A100");
    refuses(all, "auto", true, ERR_SYSTEM, "rank 2 (host n1) has A100");
    make_gpus(all);
    all[1].info.memory /= 2;
    refuses(all, "mpi", true, ERR_SYSTEM, "rank 1 (host n0)");
    make_gpus(all);
    all[3].gpu = false;
    refuses(all, "auto", true, ERR_SYSTEM, "rank 3 (host n1) has no GPU");
}

static void test_health(void **state) {
    (void)state;
    rank_gpu all[RANKS];
    make_gpus(all);
    all[1].info.health = GPU_UNKNOWN;
    assert_true(links(all, RANKS, "auto", true));
    all[2].info.health = GPU_BAD;
    snprintf(all[2].info.why, sizeof all[2].info.why, "3 uncorrected ECC errors");
    refuses(all, "auto", true, ERR_SYSTEM, "rank 2 (host n1), GPU  (H200): 3 uncorrected ECC errors");
}

static void near_is(const char *list, int cpus, int first) {
    cpu_set_t mine, out;
    CPU_ZERO(&mine);
    for (int i = 0; i < 8; i++) CPU_SET(i, &mine);
    bool good = cpus_among(list, &mine, &out);
    assert_int_equal(good, cpus > 0);
    if (!good) return;
    assert_int_equal(CPU_COUNT(&out), cpus);
    assert_true(CPU_ISSET(first, &out));
}

static void test_near(void **state) {
    (void)state;
    near_is("0-3\n", 4, 0);
    near_is("6-15,2", 3, 2);
    near_is("5", 1, 5);
    near_is("0-2,4-5,7-100000\n", 6, 7);
    near_is("8-15\n", 0, 0); // none of ours
    near_is("", 0, 0);
    near_is("\n", 0, 0);
    near_is("0-", 0, 0);
    near_is("x", 0, 0);
    near_is("0-3;4", 0, 0);
    near_is("-1", 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transport), cmocka_unit_test(test_shared), cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_mixed),     cmocka_unit_test(test_health), cmocka_unit_test(test_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
