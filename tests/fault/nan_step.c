// nan_step CONFIG RUN RANK STEP [KEY=VALUE]...: trains like `solar train`, but on one rank the gradient of
// one step is poisoned with NaN, through an ops table that wraps the device's own. For
// tests/fault/bad_step.sh.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

typedef struct poison { // what the wrapped table needs; a test program may have a global
    const ops *real;
    void *gradients;
    long step, calls;
} poison;
static poison poisoned;

static void zero_then_poison(device *d, void *to, size_t bytes) {
    static const float nan_value = NAN;
    poisoned.real->zero(d, to, bytes);
    if (to == poisoned.gradients && ++poisoned.calls == poisoned.step)
        poisoned.real->upload(d, to, &nan_value, sizeof nan_value);
}

static err *start(int argc, char **argv, training *t) {
    err *e = NULL;
    config *c = NULL;
    char run[512];
    const char *set[32] = {run};
    snprintf(run, sizeof run, "run.dir=%s", argv[2]);
    for (int i = 5; i < argc; i++) set[i - 4] = argv[i];
    TRY(config_load(argv[1], set, argc - 4, true, &c));
    t->config_text = config_dump(c);
    TRY(config_parse(t->config_text, "resolved config", &t->cfg));
    TRY(training_open(t));
done:
    config_free(c);
    return e;
}

int main(int argc, char **argv) {
    static world w;
    static training t = {.w = &w};
    static ops table;
    if (argc < 5 || argc > 30)
        return fprintf(stderr, "usage: nan_step CONFIG RUN RANK STEP [KEY=VALUE]...\n"), 2;
    err *e = world_open(&argc, &argv, &w);
    if (!e) e = start(argc, argv, &t);
    if (!e && w.rank == atoi(argv[3])) {
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): an open training has a device
        poisoned = (poison){t.dev->ops, t.p->mem.base[MEM_GRAD], atol(argv[4]), 0};
        table = *t.dev->ops;
        table.zero = zero_then_poison;
        t.dev->ops = &table;
    }
    if (!e) e = training_run(&t);
    if (world_orderly(&w, e)) training_close(&t);
    return world_close("nan_step", &w, e);
}
