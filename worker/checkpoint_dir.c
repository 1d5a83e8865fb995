#include "checkpoint_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "fsutil.h"
#include "log.h"

char *checkpoint_path(const char *run_dir, const char *prefix, int64_t step) {
    char *path = NULL;
    return asprintf(&path, "%s/checkpoints/%s%08lld", run_dir, prefix, (long long)step) < 0 ? NULL : path;
}

static bool points_at(const char *link, const char *target) {
    char found[256];
    ssize_t n = readlink(link, found, sizeof found - 1);
    if (n < 0) return false;
    found[n] = 0;
    return strcmp(found, target) == 0;
}

err *checkpoint_point(const char *run_dir, const char *life, const char *final) {
    err *e = NULL;
    char *latest = path_join(run_dir, "latest"), *temp = path_join(life, "latest"), *target = NULL;
    const char *base = strrchr(final, '/') + 1;
    if (asprintf(&target, "checkpoints/%s", base) < 0)
        FAIL(ERR_SYSTEM, "out of memory for the pointer `latest`");
    if (points_at(latest, target)) goto done;
    if (unlink(temp) != 0 && errno != ENOENT)
        FAIL(ERR_SYSTEM, "%s cannot be removed: %s", temp, strerror(errno));
    if (symlink(target, temp) != 0) {
        e = err_errno(errno, "%s cannot be made", temp);
        goto done;
    }
    if (rename(temp, latest) != 0) {
        e = err_errno(errno, "%s cannot be moved to %s", latest, target);
        goto done;
    }
    TRY(fsync_path(run_dir));
done:
    free(latest);
    free(temp);
    free(target);
    return e;
}

err *checkpoint_publish(const char *run_dir, const char *life, const char *temp, const char *final) {
    err *e = NULL;
    char *dir = path_join(run_dir, "checkpoints");
    if (rename(temp, final) != 0) {
        e = err_errno(errno, "%s cannot be renamed to %s", temp, final);
        goto done;
    }
    TRY(fsync_path(dir));
    TRY(fsync_path(life));
    TRY(checkpoint_point(run_dir, life, final));
done:
    free(dir);
    return e;
}

static int newest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static bool step_of(const char *name, int64_t *step) {
    char *end;
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9') return false;
    *step = strtoll(name + 5, &end, 10);
    return *end == 0;
}

err *checkpoint_list(const char *run_dir, int64_t **steps, int *count) {
    err *e = NULL;
    char *path = path_join(run_dir, "checkpoints");
    int64_t step, *list = NULL;
    int n = 0;
    DIR *d = opendir(path);
    if (!d && errno != ENOENT) e = err_errno(errno, "%s cannot be listed", path);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (!step_of(f->d_name, &step)) continue;
        int64_t *more = realloc(list, (size_t)(n + 1) * sizeof *list);
        if (!more) FAIL(ERR_SYSTEM, "out of memory for the list of checkpoints");
        list = more;
        list[n++] = step;
    }
    if (n) qsort(list, (size_t)n, sizeof *list, newest_first);
done:
    if (d) closedir(d);
    free(path);
    *steps = e ? NULL : list;
    *count = e ? 0 : n;
    if (e) free(list);
    return e;
}

// ---- retention

typedef struct candidate {
    int64_t step;
    double loss; // of its validation; NaN: it has none
    bool stays;
} candidate;

static int by_loss(const void *a, const void *b) {
    double x = ((const candidate *)a)->loss, y = ((const candidate *)b)->loss;
    if (isnan(x) || isnan(y)) return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

static double loss_of(const char *run_dir, int64_t step) {
    run_state s;
    char *path = checkpoint_path(run_dir, "step-", step);
    err *e = checkpoint_state(path, &s);
    double loss = !e && s.evaluated_step == s.step ? s.valid_loss : NAN;
    if (!e) run_state_free(&s);
    err_free(e);
    free(path);
    return loss;
}

// `list` is newest first when it comes, and in another order when it goes.
static void choose(const char *run_dir, const retention *r, candidate *list, int count) {
    char latest[256], *link = path_join(run_dir, "latest");
    ssize_t n = readlink(link, latest, sizeof latest - 1);
    latest[n > 0 ? n : 0] = 0;
    free(link);
    for (int i = 0; i < count; i++) {
        char target[64];
        snprintf(target, sizeof target, "checkpoints/step-%08lld", (long long)list[i].step);
        list[i].stays =
            i < r->keep || (r->every > 0 && list[i].step % r->every == 0) || !strcmp(latest, target);
        list[i].loss = r->best > 0 ? loss_of(run_dir, list[i].step) : NAN;
    }
    qsort(list, (size_t)count, sizeof *list, by_loss);
    for (int i = 0; i < count && i < r->best; i++) list[i].stays |= !isnan(list[i].loss);
}

static err *discard(const char *run_dir, const char *life, int64_t step) {
    char *from = checkpoint_path(run_dir, "step-", step), *to = path_join(life, strrchr(from, '/') + 1);
    err *e = remove_tree(to);
    if (!e && rename(from, to) != 0) e = err_errno(errno, "%s cannot be moved away", from);
    if (!e) e = remove_tree(to);
    free(from);
    free(to);
    return e;
}

void checkpoint_retain(const char *run_dir, const char *life, const retention *r) {
    int64_t *steps = NULL;
    int count = 0;
    if (r->keep <= 0) return;
    err *e = checkpoint_list(run_dir, &steps, &count);
    candidate *list = calloc((size_t)count + 1, sizeof *list);
    for (int i = 0; list && i < count; i++) list[i].step = steps[i];
    if (list && !e) choose(run_dir, r, list, count);
    for (int i = 0; list && !e && i < count; i++)
        if (!list[i].stays) e = discard(run_dir, life, list[i].step);
    if (e) log_warn("an old checkpoint could not be removed: %s", err_text(e));
    err_free(e);
    free(list);
    free(steps);
}

err *checkpoint_set_aside(const char *run_dir, int64_t step) {
    char *from = checkpoint_path(run_dir, "step-", step),
         *to = checkpoint_path(run_dir, "damaged-step-", step);
    err *e = remove_tree(to);
    if (!e && rename(from, to) != 0) e = err_errno(errno, "%s cannot be moved aside", from);
    free(from);
    free(to);
    return e;
}

static void remove_matching(const char *dir, const char *pattern) {
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (fnmatch(pattern, f->d_name, 0) != 0) continue;
        char *temp = path_join(dir, f->d_name);
        log_info("removing %s, left by an interrupted life", temp);
        err *e = remove_tree(temp);
        if (e) log_warn("%s", err_text(e));
        err_free(e);
        free(temp);
    }
    if (d) closedir(d);
}

void checkpoint_clean(const char *run_dir) {
    remove_matching(run_dir, "*.tmp-[0-9]*-[0-9]*"); // of write_file_atomic
}
