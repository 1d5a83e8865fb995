// solar train: begins or resumes a run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "fsutil.h"
#include "log.h"
#include "recommend.h"
#include "train.h"

typedef struct args {
    opt_list set;
    bool fresh, overwrite, accept, take_over;
} args;

// --fresh begins anew. A run directory that holds anything is left alone unless --overwrite says otherwise,
// and then it is moved aside, not deleted.
static err *make_fresh(const char *dir, bool overwrite) {
    char *aside = NULL, *checkpoints = path_join(dir, "checkpoints");
    run_lock lock = {0};
    err *e = NULL;
    if (!path_exists(checkpoints)) goto done;
    if (!overwrite)
        FAIL(ERR_USAGE,
             "--fresh: %s holds the checkpoints of a run. Leave --fresh away to resume it, set another "
             "run.dir, or add "
             "--overwrite to move it aside",
             dir);
    TRY(run_lock_take(dir, false, &lock)); // never from under a run that is going on
    for (int i = 1; !aside || path_exists(aside); i++) {
        free(aside);
        if (asprintf(&aside, "%s.old-%d", dir, i) < 0) FAIL(ERR_SYSTEM, "out of memory");
    }
    if (rename(dir, aside) != 0) FAIL(ERR_SYSTEM, "%s cannot be moved to %s", dir, aside);
    log_warn("moved the former run to %s", aside);
done:
    run_lock_release(&lock);
    free(aside);
    free(checkpoints);
    return e;
}

// Rank 0 reads and checks the config; all ranks work from its resolved text.
static err *share_config(const char *path, const args *a, training *t) {
    err *e = NULL;
    char *text = NULL;
    config *c = NULL;
    if (t->w->rank == 0) {
        e = config_load(path, a->set.item, a->set.count, true, &c);
        if (!e && a->fresh) e = make_fresh(c->run.dir, a->overwrite);
        if (!e && c->mesh.automatic) e = recommend_for_run(c, t->w->size);
        if (!e) text = config_dump(c);
        config_free(c);
    }
    TRY(world_share(t->w, e, text, &t->config_text));
    TRY(config_parse(t->config_text, "resolved config", &t->cfg));
done:
    return e;
}

static int run_train(int argc, char **argv) {
    args a = {0};
    const opt opts[] = {
        {"set", OPT_LIST, &a.set, "KEY=VALUE", "overrides a key of the config; may be repeated", 0, 0},
        {"fresh", OPT_FLAG, &a.fresh, NULL, "begin anew; refuses when the run directory holds checkpoints", 0,
         0},
        {"overwrite", OPT_FLAG, &a.overwrite, NULL, "with --fresh: move the former run aside", 0, 0},
        {"accept", OPT_FLAG, &a.accept, NULL, "resume although the order of samples changes", 0, 0},
        {"take-over", OPT_FLAG, &a.take_over, NULL,
         "take the run from another life that still holds its directory and cannot be ended; that life ends "
         "before it "
         "publishes anything more",
         0, 0},
    };
    int positional;
    bool helped;
    world w = {.size = 1};
    training t = {.w = &w};
    err *e = cli_parse(&cmd_train, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (!e && a.overwrite && !a.fresh) e = err_new(ERR_USAGE, "--overwrite goes with --fresh");
    if (e || helped) return cli_finish("train", e);
    t.accept_data = a.accept;
    t.take_over = a.take_over;
    wishes_catch_signals();
    TRY(world_open(&argc, &argv, &w));
    TRY(share_config(argv[1], &a, &t));
    TRY(training_open(&t));
    TRY(training_run(&t));
done:
    lives_end(&t.diary, t.state.step, t.state.tokens, e);
    if (world_orderly(&w, e)) training_close(&t);
    return world_close("train", &w, e);
}

const command cmd_train = {
    .name = "train",
    .brief = "train, or go on training, a run",
    .synopsis = "CONFIG.yaml [--set KEY=VALUE]... [--fresh [--overwrite]]",
    .about = "Begins the run of the config, or resumes it from its newest whole checkpoint when its run.dir "
             "holds one,\n"
             "on whatever number of ranks it is started with. The base model is deepened in memory as it is "
             "loaded.\n"
             "SIGTERM, SIGINT and SIGUSR1 save at the next step boundary and end with exit status 75: run "
             "the same\n"
             "command again to go on; SIGUSR2 saves and goes on. Files named STOP and SAVE in the run "
             "directory do the "
             "same.\n"
             "It stops by itself in time to save before run.deadline, or the end of the Slurm job. `solar "
             "config --schema` lists every key.",
    .examples = "  solar train jobs/small.yaml\n"
                "  mpirun -np 4 solar train jobs/small.yaml --set mesh.pipeline=2 --set mesh.tensor=2\n"
                "  solar train jobs/small.yaml --set train.steps=400 --set optimizer.lr=1e-4",
    .run = run_train,
};
