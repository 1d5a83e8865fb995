#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "checkpoint_dir.h"
#include "fsutil.h"
#include "load.h"
#include "log.h"
#include "manifest.h"
#include "save_plan.h"
#include "weights.h"

static err *check(const char *dir, unsigned what, int rank, int world, int threads, uint64_t *checked) {
    manifest *m = NULL;
    err *e = manifest_open(dir, &m);
    if (!e) e = manifest_check(m, what, rank, world, threads, checked);
    manifest_close(m);
    return err_wrap(e, "checkpoint %s", dir);
}

err *checkpoint_verify(const char *dir, int rank, int world, int threads, uint64_t *checked) {
    if (checked) *checked = 0;
    return check(dir, CHECK_PAPERS | CHECK_TENSORS, rank, world, threads, checked);
}

// ---- finding

err *checkpoint_judge(comm *c, const char *run_dir, const char *dir, err *mine, bool *damaged) {
    err *e = comm_agree(c, mine);
    int64_t step = strtoll(strrchr(dir, '-') + 1, NULL, 10);
    *damaged = err_get_code(e) == ERR_MISMATCH || err_get_code(e) == ERR_INPUT;
    if (!*damaged) return e;
    if (c->m.rank == 0) log_warn("%s; moved aside as damaged-step-%08lld", err_text(e), (long long)step);
    err_free(e);
    return comm_agree(c, c->m.rank == 0 ? checkpoint_set_aside(run_dir, step) : NULL);
}

// Rank 0 lists, so that all ranks see the same checkpoints even while directory caches differ.
static err *list_together(comm *c, const char *run_dir, int64_t **steps, int *count) {
    err *e = NULL;
    TRY(comm_agree(c, c->m.rank == 0 ? checkpoint_list(run_dir, steps, count) : NULL));
    TRY(comm_broadcast(c, &c->world, count, sizeof *count, 0));
    if (c->m.rank != 0) *steps = calloc((size_t)*count + 1, sizeof **steps);
    if (!*steps && *count) FAIL(ERR_SYSTEM, "out of memory for the list of checkpoints");
    if (*count) TRY(comm_broadcast(c, &c->world, *steps, (size_t)*count * sizeof **steps, 0));
done:
    return e;
}

static bool has_damaged(const char *run_dir) {
    char *path = path_join(run_dir, "checkpoints");
    bool found = false;
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));) found |= strncmp(f->d_name, "damaged-step-", 13) == 0;
    if (d) closedir(d);
    free(path);
    return found;
}

static err *none_good(const char *run_dir) {
    return err_new(
        ERR_INPUT,
        "none of the checkpoints of %s is whole; they are kept as damaged-step-*. Start again with "
        "--fresh, or restore one",
        run_dir);
}

err *checkpoint_find(comm *c, const char *run_dir, const char *life, char **dir) {
    err *e = NULL;
    int64_t *steps = NULL;
    int count = 0;
    bool damaged = true;
    *dir = NULL;
    c->phase = "load";
    TRY(list_together(c, run_dir, &steps, &count));
    for (int i = 0; i < count && damaged; i++) {
        free(*dir);
        *dir = checkpoint_path(run_dir, "step-", steps[i]);
        err *mine = check(*dir, CHECK_PAPERS, c->m.rank, c->m.world, 1, NULL);
        TRY(checkpoint_judge(c, run_dir, *dir, mine, &damaged));
    }
    if (damaged) {
        free(*dir);
        *dir = NULL;
        TRY(comm_agree(c, c->m.rank == 0 && has_damaged(run_dir) ? none_good(run_dir) : NULL));
        goto done;
    }
    TRY(comm_agree(c, c->m.rank == 0 ? checkpoint_point(run_dir, life, *dir) : NULL));
done:
    free(steps);
    if (e) {
        free(*dir);
        *dir = NULL;
    }
    return e;
}

// ---- loading

typedef struct loader {
    part *p;
    manifest *m;
    int threads;
    float *values; // host memory for the largest slice
    halves_buffer halves;
} loader;

// Elements at..at+n-1 of the weight's slice of one tensor, as fp32 into host memory.
static err *read_values(loader *l, const weight *w, int kind, int64_t at, int64_t n, float *to) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", w->row->name, save_kind_suffix(kind));
    want x = {.of = name,
              .shape = {w->row->shape[0], w->row->shape[1]},
              .row0 = w->s.row0,
              .rows = w->s.rows,
              .col0 = w->s.col0,
              .cols = w->s.cols,
              .at = at,
              .n = n,
              .to = DT_F32,
              .dst = to};
    return load_tensor(l->m, &x, l->threads);
}

static bool has_master(const manifest *m, const weight *w) {
    char name[128];
    const stored *t;
    snprintf(name, sizeof name, "%s%s", w->row->name, save_kind_suffix(OPTIM_MASTER));
    return manifest_find(m, name, &t) > 0;
}

static err *fill_state(loader *l, const weight *w, optim_kind k) {
    err *e = NULL;
    const part *p = l->p;
    bool direct = p->shape.moments == MOMENTS_F32 && (p->dev->ops->host_memory || p->shape.offload);
    TRY(read_values(l, w, k, w->own_at, w->own_n, !direct ? l->values : k == OPTIM_M ? w->m : w->v));
    if (!direct) TRY(optim_put(l->p, w, k, l->values));
done:
    return e;
}

// The whole slice, and once more from the most precise copy there is what this rank keeps all bits of.
static err *fill_weight(loader *l, weight *w) {
    err *e = NULL;
    int best = has_master(l->m, w) ? (int)OPTIM_MASTER : KIND_MODEL;
    bool all = l->p->shape.dt == DT_F32 || w->own_n == w->n;
    bool direct = l->p->shape.dt == DT_F32 && l->p->dev->ops->host_memory;
    TRY(read_values(l, w, all ? best : KIND_MODEL, 0, w->n, direct ? w->w : l->values));
    if (!direct) TRY(weights_put(l->p, w, 0, l->values, w->n, &l->halves));
    if (!all) {
        TRY(read_values(l, w, best, w->own_at, w->own_n, l->values));
        TRY(weights_put(l->p, w, w->own_at, l->values, w->own_n, &l->halves));
    }
    TRY(fill_state(l, w, OPTIM_M));
    TRY(fill_state(l, w, OPTIM_V));
done:
    return e;
}

static err *make_staging(loader *l) {
    int64_t most = 1;
    for (int i = 0; i < l->p->weights; i++)
        if (l->p->weight[i].n > most) most = l->p->weight[i].n;
    l->values = malloc((size_t)most * sizeof *l->values);
    return l->values ? halves_open(&l->halves)
                     : err_new(ERR_SYSTEM, "out of memory for reading a checkpoint");
}

err *checkpoint_load(part *p, const char *dir, int threads) {
    err *e = NULL;
    loader l = {.p = p, .threads = threads < 4 ? 4 : threads}; // some wait for the disk
    TRY(manifest_open(dir, &l.m));
    TRY(make_staging(&l));
    for (int i = 0; i < p->weights; i++) TRY(fill_weight(&l, &p->weight[i]));
done:
    free(l.values);
    halves_close(&l.halves);
    manifest_close(l.m);
    return err_wrap(e, "checkpoint %s", dir);
}
