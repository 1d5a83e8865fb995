// Learning rates: shapes of every kind, phases that warm up and decay again, a past that stays as it was.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "lr.h"

static config schedule_of(schedule_kind kind, int64_t steps, int64_t warmup, int64_t decay) {
    config c = {.optimizer.lr = 1e-3, .train.steps = steps};
    c.schedule.kind = kind;
    c.schedule.warmup = warmup;
    c.schedule.decay = decay;
    c.schedule.min_lr = kind == SCHED_CONSTANT ? 0 : 1e-4;
    return c;
}

static void near(double a, double b) {
    if (!(fabs(a - b) <= 1e-15)) fail_msg("%.17g, expected %.17g", a, b);
}

static void one_phase(void **state) {
    (void)state;
    config c = schedule_of(SCHED_WSD, 100, 10, 20);
    near(learning_rate(&c, 1), 1e-4);
    near(learning_rate(&c, 10), 1e-3);
    near(learning_rate(&c, 80), 1e-3);
    near(learning_rate(&c, 90), 5.5e-4);
    near(learning_rate(&c, 100), 1e-4);
    c = schedule_of(SCHED_COSINE, 110, 10, 0);
    near(learning_rate(&c, 60), 5.5e-4);
    near(learning_rate(&c, 35), 1e-4 + 9e-4 * (1 + sqrt(0.5)) / 2);
    near(learning_rate(&c, 110), 1e-4);
    c = schedule_of(SCHED_LINEAR, 110, 10, 0);
    near(learning_rate(&c, 85), 1e-4 + 9e-4 * 0.25);
    c = schedule_of(SCHED_CONSTANT, 100, 0, 0);
    near(learning_rate(&c, 1), 1e-3);
    near(learning_rate(&c, 100), 1e-3);
    c = schedule_of(SCHED_WSD, 10, 10, 0); // all warm-up
    near(learning_rate(&c, 10), 1e-3);
}

// A finished run goes on: its past is what it was, to the bit, and the new phase begins at its last rate.
static void a_finished_run_goes_on(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        config was = schedule_of((schedule_kind)kind, 100, 10, kind == SCHED_WSD ? 20 : 0), now = was;
        schedule_phase more = {.at = 100, .kind = SCHED_COSINE, .lr = 5e-4, .min_lr = 2e-5, .warmup = 5};
        now.train.steps = 200;
        now.schedule.phases = &more;
        now.schedule.n_phases = 1;
        for (int64_t s = 1; s <= 100; s++) assert_true(learning_rate(&now, s) == learning_rate(&was, s));
        double end = learning_rate(&was, 100);
        for (int64_t k = 1; k <= 5; k++)
            near(learning_rate(&now, 100 + k), end + (5e-4 - end) * (double)k / 5);
        near(learning_rate(&now, 105 + 95), 2e-5);
        for (int64_t s = 107; s <= 200; s++) assert_true(learning_rate(&now, s) < learning_rate(&now, s - 1));
    }
}

// Cut short in the middle: `steps` says what it was drawn over, so that the past stays; then phase upon
// phase.
static void a_run_is_cut_short(void **state) {
    (void)state;
    config was = schedule_of(SCHED_COSINE, 100, 10, 0), now = was;
    schedule_phase more[2] = {{.at = 40, .kind = SCHED_WSD, .lr = 2e-3, .warmup = 4, .decay = 10},
                              {.at = 70, .kind = SCHED_CONSTANT, .lr = 1e-5, .warmup = 10, .steps = 1000}};
    now.schedule.steps = 100;
    now.schedule.phases = more;
    now.schedule.n_phases = 2;
    for (int64_t s = 1; s <= 40; s++) assert_true(learning_rate(&now, s) == learning_rate(&was, s));
    double reached = learning_rate(&was, 40);
    near(learning_rate(&now, 42), (reached + 2e-3) / 2);
    near(learning_rate(&now, 60), 2e-3);
    near(learning_rate(&now, 65), 1e-3);
    near(learning_rate(&now, 70), 0);
    near(learning_rate(&now, 75), 5e-6); // up again from 0
    near(learning_rate(&now, 100), 1e-5);
    now.schedule.steps = 0; // drawn over the 40 steps that it has
    near(learning_rate(&now, 40), 1e-4);
    more[1].warmup = 0;
    near(learning_rate(&now, 71), 1e-5);
}

static void phases_are_told(void **state) {
    (void)state;
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    config c = schedule_of(SCHED_WSD, 300, 10, 20);
    schedule_phase more = {.at = 200, .kind = SCHED_LINEAR, .lr = 5e-4, .warmup = 5, .steps = 500};
    c.schedule.phases = &more;
    c.schedule.n_phases = 1;
    learning_rate_print(f, &c);
    fclose(f);
    assert_string_equal(
        text,
        "rate      steps 1-200: from 0 to 0.001 over 10, wsd 0.001, falling over the last 20; 0.0001 at the "
        "end\nrate      steps 201-300: from 0.0001 to 0.0005 over 5, linear 0.0005 of 500; 0.000404 at the "
        "end\n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_phase),
        cmocka_unit_test(a_finished_run_goes_on),
        cmocka_unit_test(a_run_is_cut_short),
        cmocka_unit_test(phases_are_told),
    };
    return cmocka_run_group_tests_name("lr", tests, NULL, NULL);
}
