#include "checkpoint_dir.h"

#include <dirent.h>
#include <errno.h>
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

static err *move_latest(const char *run_dir, const char *final) {
    err *e = NULL;
    char *latest = path_join(run_dir, "latest"), *temp = path_join(run_dir, ".latest.tmp"), *target = NULL;
    const char *base = strrchr(final, '/') + 1;
    if (asprintf(&target, "checkpoints/%s", base) < 0)
        FAIL(ERR_SYSTEM, "out of memory for the pointer `latest`");
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

err *checkpoint_publish(const char *run_dir, const char *temp, const char *final) {
    err *e = NULL;
    char *dir = path_join(run_dir, "checkpoints");
    if (rename(temp, final) != 0) {
        e = err_errno(errno, "%s cannot be renamed to %s", temp, final);
        goto done;
    }
    TRY(fsync_path(dir));
    TRY(move_latest(run_dir, final));
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

void checkpoint_retain(const char *run_dir, int64_t keep) {
    int64_t *steps;
    int count;
    err *e = checkpoint_list(run_dir, &steps, &count);
    for (int i = 0; !e && keep > 0 && i < count; i++) {
        if (i < keep) continue;
        char *path = checkpoint_path(run_dir, "step-", steps[i]);
        e = remove_tree(path);
        free(path);
    }
    if (e) log_warn("an old checkpoint could not be removed: %s", err_text(e));
    err_free(e);
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

void checkpoint_clean(const char *run_dir) {
    char *path = path_join(run_dir, "checkpoints");
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (strncmp(f->d_name, ".tmp-step-", 10) != 0) continue;
        char *temp = path_join(path, f->d_name);
        log_info("removing %s, left by an interrupted save", temp);
        err_free(remove_tree(temp));
        free(temp);
    }
    if (d) closedir(d);
    free(path);
}
