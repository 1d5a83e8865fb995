#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "checkpoint_dir.h"
#include "fsutil.h"
#include "log.h"
#include "manifest.h"
#include "safetensors.h"
#include "weights.h"

err *checkpoint_verify(const char *dir, int rank, int world) {
    json_t *entries = NULL;
    err *e = manifest_read(dir, &entries);
    if (!e) e = manifest_check(dir, entries, rank, world);
    json_decref(entries);
    return err_wrap(e, "checkpoint %s", dir);
}

// All ranks check one checkpoint together; the same verdict everywhere. *good false: damaged, and moved
// aside.
static err *try_checkpoint(comm *c, const char *run_dir, int64_t step, bool *good) {
    char *path = checkpoint_path(run_dir, "step-", step);
    err *e = comm_agree(c, checkpoint_verify(path, c->m.rank, c->m.world));
    free(path);
    *good = !e;
    if (err_get_code(e) != ERR_MISMATCH && err_get_code(e) != ERR_INPUT) return e;
    if (c->m.rank == 0) log_warn("%s; moved aside as damaged-step-%08lld", err_text(e), (long long)step);
    err_free(e);
    return comm_agree(c, c->m.rank == 0 ? checkpoint_set_aside(run_dir, step) : NULL);
}

err *checkpoint_find(comm *c, const char *run_dir, char **dir) {
    err *e = NULL;
    int64_t *steps = NULL;
    int count = 0;
    bool good = false;
    *dir = NULL;
    c->phase = "load";
    // Rank 0 lists, so that all ranks see the same checkpoints even while directory caches differ.
    TRY(comm_agree(c, c->m.rank == 0 ? checkpoint_list(run_dir, &steps, &count) : NULL));
    TRY(comm_broadcast(c, &c->world, &count, sizeof count, 0));
    if (c->m.rank != 0) steps = calloc((size_t)(count ? count : 1), sizeof *steps);
    if (!steps && count) FAIL(ERR_SYSTEM, "out of memory for the list of checkpoints");
    if (count) TRY(comm_broadcast(c, &c->world, steps, (size_t)count * sizeof *steps, 0));
    for (int i = 0; i < count && !good; i++) {
        TRY(try_checkpoint(c, run_dir, steps[i], &good));
        if (good) *dir = checkpoint_path(run_dir, "step-", steps[i]);
    }
    if (count && !good)
        FAIL(ERR_INPUT,
             "none of the %d checkpoints of %s is whole; they are kept as damaged-step-*. Start again "
             "with --fresh, or restore one",
             count, run_dir);
    if (good) TRY(comm_agree(c, c->m.rank == 0 ? checkpoint_point(run_dir, *dir) : NULL));
done:
    free(steps);
    return e;
}

static err *open_optimizer(const char *dir, st_set **out) {
    char *pattern = path_join(dir, "solar/optimizer*.safetensors");
    glob_t found = {0};
    err *e = NULL;
    if (glob(pattern, 0, NULL, &found) != 0) FAIL(ERR_INPUT, "%s: no optimizer state", pattern);
    TRY(st_open_files((const char *const *)found.gl_pathv, (int)found.gl_pathc, out));
done:
    globfree(&found);
    free(pattern);
    return e;
}

err *checkpoint_load(part *p, const char *dir) {
    err *e = NULL;
    st_set *model = NULL, *optim = NULL;
    TRY(st_open(dir, &model));
    TRY(table_check_files(p->table, model, false));
    TRY(weights_load(p, model, false));
    TRY(open_optimizer(dir, &optim));
    TRY(weights_load_optimizer(p, optim));
done:
    st_close(model);
    st_close(optim);
    return err_wrap(e, "checkpoint %s", dir);
}
