// trouble CONFIG RUN RANK STEP WHAT [KEY=VALUE]...: trains like `solar train`, but one rank meets with
// trouble at one step, through an ops table that wraps the device's own. WHAT: `nan`, its gradient is
// poisoned; `stop:PHASE`, `kill:PHASE`: it is sent that signal in the forward or backward pass, in the
// reduction of gradients or while it evaluates. For tests/fault/bad_step.sh and peers.sh.
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train.h"

static struct trouble { // what the wrapped table needs; a test program may have a global
    const ops *real;
    const comm *c;
    char *gradients;
    size_t gradient_bytes;
    long step, calls;
    int signal; // 0: NaN
    const char *where;
} in;

static void zero(device *d, void *to, size_t bytes) {
    static const float nan_value = NAN;
    in.real->zero(d, to, bytes);
    if (!in.signal && to == in.gradients && ++in.calls == in.step)
        in.real->upload(d, to, &nan_value, sizeof nan_value);
}

static void meet(const char *where, const char *phase) {
    if (!in.signal || strcmp(where, in.where) != 0 || strcmp(phase, in.c->phase) != 0 || in.c->step < in.step)
        return;
    kill(getpid(), in.signal);
}

static void rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                    const void *w, int64_t T, int64_t h, float eps) {
    meet("forward", "train");
    meet("evaluate", "evaluate");
    in.real->rmsnorm(d, dt, y, rstd, sum, x, delta, w, T, h, eps);
}

static void rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                         const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                         int64_t T, int64_t h) {
    meet("backward", "train");
    in.real->rmsnorm_grad(d, dt, gdt, dx, dw, residual, dy, x, w, rstd, partial, T, h);
}

// Sums of gradients come back into their place.
static void upload(device *d, void *dst, const void *host, size_t bytes) {
    char *to = dst;
    if (to >= in.gradients && to < in.gradients + in.gradient_bytes) meet("reduce", "train");
    in.real->upload(d, dst, host, bytes);
}

static bool read_trouble(const char *what) {
    in.signal = !strncmp(what, "stop:", 5) ? SIGSTOP : !strncmp(what, "kill:", 5) ? SIGKILL : 0;
    in.where = what + (in.signal ? 5 : 0);
    return in.signal || !strcmp(what, "nan");
}

static void wrap(training *t) {
    static ops table;
    const arena *a = &t->p->mem;
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): an open training has a device
    in.real = t->dev->ops;
    in.c = t->c;
    in.gradients = a->base[MEM_GRAD];
    in.gradient_bytes = a->used[MEM_GRAD];
    table = *t->dev->ops;
    table.zero = zero;
    table.rmsnorm = rmsnorm;
    table.rmsnorm_grad = rmsnorm_grad;
    table.upload = upload;
    t->dev->ops = &table;
}

static err *start(int argc, char **argv, training *t) {
    err *e = NULL;
    config *c = NULL;
    char run[512];
    const char *set[32] = {run};
    snprintf(run, sizeof run, "run.dir=%s", argv[2]);
    for (int i = 6; i < argc; i++) set[i - 5] = argv[i];
    TRY(config_load(argv[1], set, argc - 5, true, &c));
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
    if (argc < 6 || argc > 30 || !read_trouble(argv[5]))
        return fprintf(stderr,
                       "usage: trouble CONFIG RUN RANK STEP nan|stop:PHASE|kill:PHASE [KEY=VALUE]...\n"),
               2;
    in.step = atol(argv[4]);
    err *e = world_open(&argc, &argv, &w);
    if (!e) e = start(argc, argv, &t);
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): an open training has a device
    if (!e && w.rank == atoi(argv[3])) wrap(&t);
    if (!e) e = training_run(&t);
    if (world_orderly(&w, e)) training_close(&t);
    return world_close("trouble", &w, e);
}
