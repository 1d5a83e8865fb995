// The plan's parts: what operations cost on paper, steps in time, machines, charts.
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

#include "cost.h"
#include "simulate.h"
#include "timeline.h"

static void ok(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void expect(err *e, err_code code, const char *part) {
    assert_int_equal(err_get_code(e), code);
    if (!strstr(err_text(e), part)) fail_msg("'%s' is not in '%s'", part, err_text(e));
    err_free(e);
}

static void near(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-9 * fabs(expected)))
        fail_msg("%.12g, expected %.12g", found, expected);
}

// ---- operations

typedef struct heard {
    cost_listener base;
    op_cost last;
} heard;

static void hear(cost_listener *self, const op_cost *c) { ((heard *)self)->last = *c; }

static double pairs(int64_t start, int64_t q_rows, int64_t window) {
    double n = 0;
    for (int64_t i = start; i < start + q_rows; i++)
        for (int64_t j = 0; j <= i; j++) n += window == 0 || i - j < window;
    return n;
}

static void test_attention_counts_what_is_seen(void **state) {
    (void)state;
    heard h = {.base = {hear}};
    device *d;
    ok(plan_device_open(&h.base, &d));
    for (int64_t window = 0; window <= 12; window++)
        for (int64_t start = 0; start < 10; start += 3) {
            attention a = {.batch = 2, .rows = 10, .q_start = start, .q_rows = 10 - start, .heads = 4};
            a.kv_heads = 2;
            a.head_dim = 8;
            a.window = window;
            d->ops->attention(d, &a);
            near(h.last.flop, 2 * 2 * 2 * 4 * 8 * pairs(start, 10 - start, window));
            near(h.last.full_flop, 2.0 * 2 * 2 * 4 * 8 * (double)(10 - start) * 10);
            d->ops->attention_grad(d, &a);
            near(h.last.flop, 2 * 5 * 2 * 4 * 8 * pairs(start, 10 - start, window));
        }
    d->ops->product(d, &(product){.dt = DT_BF16, .cdt = DT_F32, .accumulate = true, .m = 3, .n = 5, .k = 7});
    near(h.last.flop, 2 * 3 * 5 * 7);
    near(h.last.bytes, 2 * (3 * 7 + 5 * 7) + 4 * 2 * 3 * 5);
    d->ops->close(d);
}

static void test_memory_without_contents(void **state) {
    (void)state;
    device *d;
    void *a, *b;
    double x = 7;
    ok(plan_device_open(NULL, &d));
    ok(d->ops->alloc(d, (size_t)1 << 42, &a));
    ok(d->ops->alloc(d, 10, &b));
    assert_true((char *)b >= (char *)a + ((size_t)1 << 42));
    assert_true(plan_device_allocated(d) == ((size_t)1 << 42) + 10);
    d->ops->download(d, &x, a, sizeof x);
    assert_true(x == 0);
    d->ops->close(d);
}

// ---- steps in time

static const machine instant = {"instant", 1e9, {1, 1}, 1, 1, 1, 1, 0, 8, INFINITY, 0, INFINITY, 0};

typedef struct writer {
    trace *t;
    uint32_t id;
} writer;

static void put(writer *w, trace_event e) { w->t->event[w->t->events++] = e; }

static void receive(writer *w, int peer, int tag) {
    put(w, (trace_event){.what = TRACE_RECEIVE, .peer = peer, .tag = tag, .id = ++w->id});
    put(w, (trace_event){.what = TRACE_WAIT, .id = w->id});
}

// Forward takes 1 s, backward 2 s; a message to the next stage or the one before.
static void work(writer *w, int p, int pp, bool forward, int micro) {
    trace *t = w->t;
    int from = forward ? p - 1 : p + 1, to = forward ? p + 1 : p - 1, tag = forward;
    if (from >= 0 && from < pp) receive(w, from, tag);
    trace_action *a = &t->action[t->actions++];
    *a = (trace_action){forward ? ACT_FORWARD : ACT_BACKWARD, micro, 0, t->events, 0};
    put(w, (trace_event){.what = TRACE_BUSY, .amount = forward ? 1 : 2});
    if (to >= 0 && to < pp)
        put(w, (trace_event){.what = TRACE_SEND, .peer = to, .tag = tag, .id = ++w->id, .amount = 100});
    a->end = t->events;
}

// 1F1B, written down by hand.
static trace one_stage(int p, int pp, int micro) {
    trace t = {0};
    writer w = {&t, 0};
    int warm = pp - p - 1 < micro ? pp - p - 1 : micro, f = 0, b = 0;
    ok(mesh_make(pp, p, pp, 1, MESH_TDP, &t.m));
    t.event = calloc((size_t)micro * 10, sizeof *t.event);
    t.action = calloc((size_t)micro * 2, sizeof *t.action);
    while (f < warm) work(&w, p, pp, true, f++);
    while (f < micro) {
        work(&w, p, pp, true, f++);
        work(&w, p, pp, false, b++);
    }
    while (b < micro) work(&w, p, pp, false, b++);
    return t;
}

static void test_idle_share_of_1f1b(void **state) {
    (void)state;
    for (int pp = 1; pp <= 6; pp++)
        for (int micro = 1; micro <= 12; micro++) {
            trace t[6];
            simulation s;
            for (int p = 0; p < pp; p++) t[p] = one_stage(p, pp, micro);
            ok(simulate(t, pp, 1, 8, &instant, &s));
            near(s.step, 3.0 * (micro + pp - 1));
            near(1 - s.idle, 1 - (pp - 1) / (double)(micro + pp - 1));
            near(s.action[pp - 1][0].start, pp - 1);
            simulation_free(&s);
            for (int p = 0; p < pp; p++) trace_free(&t[p]);
        }
}

static void test_messages_take_time(void **state) {
    (void)state;
    machine slow = instant;
    trace t[2] = {one_stage(0, 2, 1), one_stage(1, 2, 1)};
    simulation s;
    slow.link = 50; // 100 bytes: 2 s
    slow.link_latency = 0.5;
    slow.network = 10; // 10 s
    ok(simulate(t, 2, 1, 8, &slow, &s));
    near(s.step, 6 + 2 * 2.5);
    simulation_free(&s);
    slow.node = 1;
    ok(simulate(t, 2, 1, 8, &slow, &s));
    near(s.step, 6 + 2 * 10.0);
    simulation_free(&s);
    t[1].events--; // the last message is not sent
    expect(simulate(t, 2, 1, 8, &slow, &s), ERR_RUNTIME, "waits for what nobody sends");
    trace_free(&t[0]);
    trace_free(&t[1]);
}

// Two tensor ranks: a collective begins with the later and ends for both.
static void test_collectives_end_together(void **state) {
    (void)state;
    machine slow = instant;
    simulation s;
    trace t[2] = {0};
    slow.link = 50;
    slow.link_latency = 0.5;
    for (int i = 0; i < 2; i++) {
        writer w = {&t[i], 0};
        ok(mesh_make(2, i, 1, 2, MESH_TDP, &t[i].m));
        t[i].event = calloc(4, sizeof *t[i].event);
        put(&w, (trace_event){.what = TRACE_BUSY, .amount = 1 + 3 * i});
        put(&w, (trace_event){.what = TRACE_TOGETHER, .kind = COMM_TENSOR_SUM, .messages = 2, .amount = 100});
        put(&w, (trace_event){.what = TRACE_BUSY, .amount = 1});
        put(&w,
            (trace_event){.what = TRACE_TOGETHER, .kind = COMM_TENSOR_GATHER, .messages = 1, .amount = 50});
    }
    ok(simulate(t, 1, 2, 8, &slow, &s));
    near(s.step, 4 + (2 + 1) + 1 + (1 + 0.5));
    near(s.rank[0].waiting, 3);
    near(s.rank[1].compute, 5);
    simulation_free(&s);
    trace_free(&t[0]);
    trace_free(&t[1]);
}

// ---- charts

static void test_chart(void **state) {
    (void)state;
    trace t[3];
    simulation s;
    timeline_row rows[3];
    char *text;
    size_t bytes;
    for (int p = 0; p < 3; p++) t[p] = one_stage(p, 3, 3);
    ok(simulate(t, 3, 1, 8, &instant, &s));
    for (int p = 0; p < 3; p++) rows[p] = (timeline_row){p, s.action[p], t[p].actions};
    FILE *f = open_memstream(&text, &bytes);
    timeline_print(f, rows, 3, 60);
    fclose(f);
    assert_string_equal(text, "0 to 15 s\n"
                              "stage   0 |F0--F1--F2--................B0======....B1======....B2======|\n"
                              "stage   1 |....F0--F1--........B0======F2--B1======....B2======........|\n"
                              "stage   2 |........F0--B0======F1--B1======F2--B2======................|\n");
    near(timeline_idle(rows, 3, 1), 0.4);
    free(text);
    simulation_free(&s);
    for (int p = 0; p < 3; p++) trace_free(&t[p]);
}

// ---- machines

static void load(const char *text, const char *name, machine *m, err **e) {
    char path[] = "/tmp/solar-machine-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    *e = machine_load(path, name, m);
    unlink(path);
}

#define REST                                                                                                 \
    " bf16: 2e12, product: 0.5, attention: 0.25, bandwidth: 1e12, stream: 1, launch: 0, node: 4, link: "     \
    "1e9, "                                                                                                  \
    "link_latency: 1e-6, network: 1e8, network_latency: 1e-5}\n"

static void test_machines(void **state) {
    (void)state;
    machine m;
    err *e;
    load("mine: {memory: 1e9, fp32: 1e12," REST, "mine", &m, &e);
    ok(e);
    near(machine_seconds(&m, &(op_cost){OP_PRODUCT, DT_BF16, 1e12, 1e12, 0}), 1);
    near(machine_seconds(&m, &(op_cost){OP_ATTENTION, DT_F32, 1e12, 1e12, 0}), 4);
    near(machine_seconds(&m, &(op_cost){OP_LAYER, DT_F32, 0, 0, 1e12}), 1);
    load("mine: {memory: 1e9, fp32: 1e12," REST, "yours", &m, &e);
    expect(e, ERR_CONFIG, "found no machine \"yours\", expected one of mine");
    load("mine: {memory: 1e9," REST, "mine", &m, &e);
    expect(e, ERR_CONFIG, "found no fp32");
    load("mine: {memory: -1, fp32: 1e12," REST, "mine", &m, &e);
    expect(e, ERR_CONFIG, "mine.memory: found integer -1, expected a number > 0");
    load("mine: {memry: 1e9, fp32: 1e12," REST, "mine", &m, &e);
    expect(e, ERR_CONFIG, "unknown figure \"memry\" (did you mean memory?)");
    load("- mine\n", "mine", &m, &e);
    expect(e, ERR_CONFIG, "found no map");
    expect(machine_load("/nowhere.yaml", "mine", &m), ERR_CONFIG, "expected a file of machines");
}

// Data ranks of 4 on hosts of 4 with two tensor ranks: one peer near, two far.
static void test_groups_across_hosts(void **state) {
    (void)state;
    machine m = instant;
    mesh at;
    m.node = 4;
    m.link = 1000;
    m.network = 10;
    ok(mesh_make(8, 0, 1, 2, MESH_TDP, &at));
    near(machine_together(&m, &at, 8, COMM_DATA_SUM, 300), 200.0 / 10);
    near(machine_together(&m, &at, 8, COMM_TENSOR_SUM, 300), 300.0 / 1000);
    assert_true(machine_together(&m, &at, 8, COMM_KV_SUM, 0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_counts_what_is_seen),
        cmocka_unit_test(test_memory_without_contents),
        cmocka_unit_test(test_idle_share_of_1f1b),
        cmocka_unit_test(test_messages_take_time),
        cmocka_unit_test(test_collectives_end_together),
        cmocka_unit_test(test_chart),
        cmocka_unit_test(test_machines),
        cmocka_unit_test(test_groups_across_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
