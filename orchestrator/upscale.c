// Depth up-scaling on disk: tensors stream from donor to output.
#include "upscale.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"
#include "model_dir.h"

enum { STEP = 64 << 20 }; // bytes between two looks at the progress

typedef struct job {
    const upscale_options *o;
    model_dir base;
    depth_plan *plan;
    model_spec *spec; // of the scaled model
    table *table;
    char *plan_text;
    char *out, *parent, *stage; // absolute; stage is where the files grow
    int *first;                 // [files+1] rows of the table, file by file
    int files;
    uint64_t total, done;
    progress progress;
    double start;
} job;

// ---- where to

// OUT's parent, made when missing, as an absolute path without links, so that BASE and OUT can be compared.
static err *resolve_out(job *j) {
    char *path = strdup(j->o->out), *absolute = NULL;
    if (!path) return err_new(ERR_SYSTEM, "no memory for a path");
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = '\0';
    char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    err *e = NULL;
    if (path_exists(path))
        e = err_new(ERR_USAGE, "%s exists: remove it, or choose another place for the scaled model", path);
    else if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        e = err_new(ERR_USAGE, "'%s' is no name for a new directory", j->o->out);
    if (!e && slash) {
        *slash = '\0';
        e = make_dirs(slash == path ? "/" : path);
    }
    if (!e && !(absolute = realpath(!slash ? "." : slash == path ? "/" : path, NULL)))
        e = err_errno(errno, "cannot find the directory of %s", j->o->out);
    if (!e) {
        j->parent = absolute;
        j->out = path_join(absolute, name);
    }
    free(path);
    return e;
}

static err *check_not_inside(const job *j) {
    char *base = realpath(j->o->base, NULL);
    if (!base) return err_errno(errno, "cannot find %s", j->o->base);
    size_t n = strlen(base);
    bool inside = strncmp(j->parent, base, n) == 0 && (j->parent[n] == '/' || j->parent[n] == '\0');
    free(base);
    if (!inside) return NULL;
    return err_new(ERR_USAGE, "%s lies inside the base model %s: choose a place outside of it", j->out,
                   j->o->base);
}

static err *check_space(const job *j) {
    struct statvfs fs;
    char need[32], have[32];
    if (statvfs(j->parent, &fs) != 0)
        return err_errno(errno, "cannot ask for the free space of %s", j->parent);
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (available >= j->total) return NULL;
    format_bytes(need, (double)j->total);
    format_bytes(have, (double)available);
    return err_new(ERR_SYSTEM,
                   "the scaled model needs %s, but %s has only %s free: make room or choose another place",
                   need, j->parent, have);
}

static err *open_stage(job *j) {
    char *path = NULL;
    if (asprintf(&path, "%s.tmp-%ld", j->out, (long)getpid()) < 0)
        return err_new(ERR_SYSTEM, "no memory for a path");
    if (mkdir(path, 0777) == 0) {
        j->stage = path;
        return NULL;
    }
    err *e = errno == EEXIST ? err_new(ERR_USAGE, "%s is in the way, left by an earlier run: remove it", path)
                             : err_errno(errno, "cannot make directory %s", path);
    free(path);
    return e;
}

// The whole directory gets its name at once. An OUT that came up meanwhile is not replaced.
static err *publish(job *j) {
    err *e = fsync_path(j->stage);
    if (e) return e;
    int rc = renameat2(AT_FDCWD, j->stage, AT_FDCWD, j->out, RENAME_NOREPLACE);
    if (rc != 0 && (errno == EINVAL || errno == ENOSYS) && !path_exists(j->out))
        rc = rename(j->stage, j->out);
    if (rc != 0) return err_errno(errno, "cannot rename %s to %s", j->stage, j->out);
    free(j->stage);
    j->stage = NULL;
    return fsync_path(j->parent);
}

// ---- what

static err *make_plan(job *j) {
    err *e = NULL;
    TRY(depth_options_check(&j->o->depth));
    if (!depth_asked(&j->o->depth))
        FAIL(ERR_USAGE, "found neither --m nor --layers nor --insert-every, expected one of them");
    TRY(depth_make((int)j->base.spec->layers, &j->o->depth, &j->plan));
    TRY(spec_deepen(j->base.spec, j->plan, &j->spec));
    TRY(table_make(j->spec, j->plan, NULL, &j->table));
    j->plan_text = depth_text(j->plan);
    if (!j->plan_text) FAIL(ERR_SYSTEM, "no memory for a depth plan");
done:
    return e;
}

static const st_tensor *donor_of(const job *j, int row) {
    return st_find(j->base.files, j->table->row[row].donor);
}

// Deals the rows out to files in order; a file is full when the next tensor would make it too large.
static err *deal_files(job *j) {
    uint64_t held = 0;
    j->first = calloc((size_t)j->table->count + 1, sizeof *j->first);
    if (!j->first) return err_new(ERR_SYSTEM, "no memory for %d tensors", j->table->count);
    j->files = 1;
    for (int i = 0; i < j->table->count; i++) {
        uint64_t bytes = donor_of(j, i)->bytes;
        if (held > 0 && (bytes > j->o->max_shard || held > j->o->max_shard - bytes)) {
            j->first[j->files++] = i;
            held = 0;
        }
        held += bytes;
        j->total += bytes;
    }
    j->first[j->files] = j->table->count;
    return NULL;
}

// ---- the bytes

static void report_progress(job *j) {
    char done[32], total[32], left[32];
    double passed = now_seconds() - j->start;
    if (!j->o->progress) return;
    format_bytes(done, (double)j->done);
    format_bytes(total, (double)j->total);
    format_time(left, passed * (double)(j->total - j->done) / (double)(j->done ? j->done : 1));
    progress_line(&j->progress, j->progress.tty && j->done == j->total,
                  "upscale: %s of %s, %.0f MB/s, %s left", done, total,
                  (double)j->done / 1e6 / (passed > 0 ? passed : 1), left);
}

// The donor's bytes, or as many zeros.
static err *copy_tensor(job *j, int row, st_writer *w) {
    static const char zeros[1 << 16];
    const st_tensor *t = donor_of(j, row);
    bool zero = j->table->row[row].zero;
    uint64_t step = zero ? sizeof zeros : STEP;
    for (uint64_t at = 0, n; at < t->bytes; at += n) {
        n = t->bytes - at < step ? t->bytes - at : step;
        err *e = zero ? st_write(w, zeros, n) : st_write_from(w, j->base.files, t, at, n);
        if (e) return e;
        j->done += n;
        report_progress(j);
    }
    return NULL;
}

static char *file_name(int file, int files) {
    char *name = NULL;
    int n = files == 1 ? asprintf(&name, "model.safetensors")
                       : asprintf(&name, "model-%05d-of-%05d.safetensors", file + 1, files);
    return n < 0 ? NULL : name;
}

static err *open_file(const job *j, int file, const char *name, st_writer **out) {
    int first = j->first[file], count = j->first[file + 1] - first;
    const char *const meta[][2] = {{DEPTH_PLAN_KEY, j->plan_text}};
    st_decl *decl = calloc((size_t)count, sizeof *decl);
    if (!decl) return err_new(ERR_SYSTEM, "no memory for %d tensors", count);
    for (int i = 0; i < count; i++) {
        const st_tensor *t = donor_of(j, first + i);
        decl[i] = (st_decl){.name = j->table->row[first + i].name, .dt = t->dt, .ndim = t->ndim};
        memcpy(decl[i].shape, t->shape, sizeof decl[i].shape);
    }
    char *path = path_join(j->stage, name);
    err *e = st_writer_open(path, decl, count, meta, 1, out);
    free(path);
    free(decl);
    return e;
}

static err *write_tensors(job *j, int file, const char *name) {
    st_writer *w = NULL;
    err *e = open_file(j, file, name, &w);
    for (int i = j->first[file]; !e && i < j->first[file + 1]; i++) e = copy_tensor(j, i, w);
    if (!e) return st_writer_close(w);
    st_writer_abort(w);
    return e;
}

static err *write_weights(job *j) {
    err *e = NULL;
    char **names = calloc((size_t)j->files, sizeof *names);
    if (!names) FAIL(ERR_SYSTEM, "no memory for %d file names", j->files);
    for (int i = 0; i < j->files; i++) {
        names[i] = file_name(i, j->files);
        if (!names[i]) FAIL(ERR_SYSTEM, "no memory for a file name");
        TRY(write_tensors(j, i, names[i]));
    }
    if (j->files > 1) TRY(st_write_index(j->stage, (const char *const *)names, j->files));
done:
    for (int i = 0; names && i < j->files; i++) free(names[i]);
    free(names);
    return e;
}

// ---- all of it

static void job_close(job *j) {
    if (j->stage) err_free(remove_tree(j->stage)); // there is an error to report already
    model_dir_close(&j->base);
    depth_free(j->plan);
    spec_free(j->spec);
    table_free(j->table);
    free(j->plan_text);
    free(j->out);
    free(j->parent);
    free(j->stage);
    free(j->first);
}

static void fill_report(job *j, upscale_report *r) {
    *r = (upscale_report){.plan = j->plan, .bytes = j->total, .files = j->files};
    r->parameters_before = spec_parameters(j->base.spec);
    r->parameters_after = spec_parameters(j->spec);
    r->seconds = now_seconds() - j->start;
    j->plan = NULL;
}

err *upscale(const upscale_options *o, upscale_report *report) {
    err *e = NULL;
    job j = {.o = o, .start = now_seconds()};
    progress_start(&j.progress);
    j.progress.last_time = j.start; // a short run needs no progress
    TRY(model_dir_open(o->base, &j.base));
    TRY(make_plan(&j));
    TRY(deal_files(&j));
    TRY(resolve_out(&j));
    TRY(check_not_inside(&j));
    TRY(check_space(&j));
    TRY(open_stage(&j));
    TRY(spec_save(j.spec, j.stage));
    TRY(copy_model_extras(o->base, j.stage));
    TRY(write_weights(&j));
    TRY(publish(&j));
    fill_report(&j, report);
done:
    job_close(&j);
    return e;
}
