#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "checkpoint_dir.h"
#include "fsutil.h"
#include "log.h"
#include "manifest.h"
#include "safetensors.h"
#include "weights.h"

enum { CHUNK = 1 << 20, TAG_SAVE = 20, TAG_ENTRIES = 21 }; // elements gathered at a time

typedef struct save {
    part *p;
    comm *c;
    const save_options *o;
    const run_state *state;
    char *final, *temp; // directories
    int *writer;        // [table->count] tensor rank that writes the tensor
    int files, file;    // files in all; the one this rank writes, -1 none
    char model_name[80], optim_name[80];
    st_decl *decl, *optim_decl; // of this rank's files
    char (*optim_names)[128];
    int decls, optim_decls;
    st_writer *model, *optim;
    char *chunk, *piece; // host, CHUNK elements or one row
    json_t *entries;     // rank 0: of the manifest
    err *failed;         // first failure of this rank's writing; the exchange goes on without it
} save;

// ---- who writes what: within a stage the tensor rank with the least to do so far

static int64_t *stage_load(int64_t *load, const tensor_row *r, int tp) { return load + r->stage * tp; }

static err *assign_writers(save *s) {
    const table *t = s->p->table;
    const mesh *m = &s->p->m;
    int64_t *load = calloc((size_t)(m->pp * m->tp), sizeof *load);
    s->writer = calloc((size_t)t->count, sizeof *s->writer);
    if (!load || !s->writer) {
        free(load);
        return err_new(ERR_SYSTEM, "out of memory for the list of writers");
    }
    for (int i = 0; i < t->count; i++) {
        int64_t *mine = stage_load(load, &t->row[i], m->tp);
        for (int r = 1; r < m->tp; r++)
            if (mine[r] < mine[s->writer[i]]) s->writer[i] = r;
        mine[s->writer[i]] += tensor_elements(&t->row[i]);
    }
    s->file = -1;
    for (int i = 0; i < m->pp * m->tp; i++) {
        if (!load[i]) continue;
        if (i == m->p * m->tp + m->t) s->file = s->files;
        s->files++;
    }
    free(load);
    return NULL;
}

static void file_name(char out[80], const char *stem, int i, int n) {
    if (n == 1)
        snprintf(out, 80, "%s.safetensors", stem);
    else
        snprintf(out, 80, "%s-%05d-of-%05d.safetensors", stem, i + 1, n);
}

static bool writes(const save *s, int row) {
    return s->p->table->row[row].stage == s->p->m.p && s->writer[row] == s->p->m.t;
}

static st_decl declare(const tensor_row *r, const char *name, dtype dt) {
    return (st_decl){.name = name, .dt = dt, .ndim = r->ndim, .shape = {r->shape[0], r->shape[1]}};
}

static err *declare_files(save *s) {
    const table *t = s->p->table;
    int kinds = weights_optim_kinds(s->p->shape.dt);
    size_t n = (size_t)t->count;
    s->decl = calloc(n, sizeof *s->decl);
    s->optim_decl = calloc(n * OPTIM_KINDS, sizeof *s->optim_decl);
    s->optim_names = calloc(n * OPTIM_KINDS, sizeof *s->optim_names);
    if (!s->decl || !s->optim_decl || !s->optim_names)
        return err_new(ERR_SYSTEM, "out of memory for a checkpoint");
    for (int i = 0; i < t->count; i++) {
        if (!writes(s, i)) continue;
        s->decl[s->decls++] = declare(&t->row[i], t->row[i].name, s->p->shape.dt);
        for (int k = 0; k < kinds; k++, s->optim_decls++) {
            weights_optim_name(s->optim_names[s->optim_decls], &t->row[i], (optim_kind)k);
            s->optim_decl[s->optim_decls] = declare(&t->row[i], s->optim_names[s->optim_decls], DT_F32);
        }
    }
    return NULL;
}

static err *open_files(save *s) {
    err *e = NULL;
    char *model = path_join(s->temp, s->model_name), *optim = path_join(s->temp, s->optim_name);
    TRY(st_writer_open(model, s->decl, s->decls, NULL, 0, &s->model));
    TRY(st_writer_open(optim, s->optim_decl, s->optim_decls, NULL, 0, &s->optim));
done:
    free(model);
    free(optim);
    return e;
}

// ---- gathering a tensor from its tensor ranks, a chunk of rows at a time, into the writer's file

// Of ranks that hold the same slice one speaks: for a replicated tensor the writer itself.
static bool speaks(const slice *s, int tp, int t, int writer) {
    return s->copies == tp ? t == writer : s->copy == 0;
}

typedef struct source { // one tensor of one kind on its way to a file
    const tensor_row *row;
    const void *data; // device, this rank's slice
    dtype dt;
    int writer;
    st_writer *to; // NULL on ranks that do not write it
} source;

static void download_rows(save *s, const source *src, const slice *mine, int64_t row, int64_t rows,
                          void *to) {
    size_t w = dtype_size(src->dt);
    const char *from = (const char *)src->data + (size_t)((row - mine->row0) * mine->cols) * w;
    s->p->dev->ops->download(s->p->dev, to, from, (size_t)(rows * mine->cols) * w);
}

static void scatter(char *chunk, const char *piece, int64_t at_row, int64_t rows, int64_t col, int64_t cols,
                    int64_t width, size_t w) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(chunk + (size_t)((at_row + r) * width + col) * w, piece + (size_t)(r * cols) * w,
               (size_t)cols * w);
}

// What tensor rank t contributes to rows first..first+rows-1: sent by t, placed by the writer.
static err *move_piece(save *s, const source *src, int t, int64_t first, int64_t rows) {
    const mesh *m = &s->p->m;
    slice part = tensor_slice(src->row, m->tp, t);
    int64_t lo = part.row0 > first ? part.row0 : first;
    int64_t hi = part.row0 + part.rows < first + rows ? part.row0 + part.rows : first + rows;
    size_t w = dtype_size(src->dt), bytes = (size_t)((hi - lo) * part.cols) * w;
    if (hi <= lo || !part.cols || !speaks(&part, m->tp, t, src->writer)) return NULL;
    if (m->t != t && m->t != src->writer) return NULL;
    if (m->t == t) download_rows(s, src, &part, lo, hi - lo, s->piece);
    if (m->t != src->writer)
        return comm_put(s->c, mesh_rank(m, 0, m->p, src->writer), TAG_SAVE, s->piece, bytes);
    if (m->t != t) {
        err *e = comm_take(s->c, mesh_rank(m, 0, m->p, t), TAG_SAVE, s->piece, bytes);
        if (e) return e;
    }
    scatter(s->chunk, s->piece, lo - first, hi - lo, part.col0, part.cols, src->row->shape[1], w);
    return NULL;
}

static err *save_tensor(save *s, const source *src) {
    err *e = NULL;
    const tensor_row *r = src->row;
    int64_t step = CHUNK / r->shape[1] > 0 ? CHUNK / r->shape[1] : 1;
    for (int64_t at = 0; at < r->shape[0]; at += step) {
        int64_t rows = r->shape[0] - at < step ? r->shape[0] - at : step;
        for (int t = 0; t < s->p->m.tp; t++) TRY(move_piece(s, src, t, at, rows));
        if (src->to && !s->failed)
            s->failed = st_write(src->to, s->chunk, (uint64_t)(rows * r->shape[1]) * dtype_size(src->dt));
    }
done:
    return e;
}

static const weight *local_weight(const part *p, const tensor_row *r) {
    for (int i = 0; i < p->weights; i++)
        if (p->weight[i].row == r) return &p->weight[i];
    return NULL;
}

static err *save_row(save *s, int i) {
    err *e = NULL;
    const tensor_row *r = &s->p->table->row[i];
    const weight *w = local_weight(s->p, r);
    source src = {.row = r, .data = w->w, .dt = s->p->shape.dt, .writer = s->writer[i]};
    src.to = writes(s, i) ? s->model : NULL;
    TRY(save_tensor(s, &src));
    src.dt = DT_F32;
    src.to = writes(s, i) ? s->optim : NULL;
    for (int k = 0; k < weights_optim_kinds(s->p->shape.dt); k++) {
        src.data = weights_optim_data(w, (optim_kind)k);
        TRY(save_tensor(s, &src));
    }
done:
    return e;
}

static int64_t widest(const table *t) {
    int64_t most = CHUNK;
    for (int i = 0; i < t->count; i++)
        if (t->row[i].shape[1] > most) most = t->row[i].shape[1];
    return most;
}

static err *close_writer(save *s, st_writer **w, json_t *list, const char *file, const st_decl *decl,
                         int count) {
    err *e = NULL;
    st_writer *writer = *w;
    *w = NULL;
    json_t *entry = manifest_tensors(file, writer, decl, count);
    TRY(st_writer_close(writer));
    if (!entry || json_array_append(list, entry) != 0) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    TRY(manifest_header(s->temp, entry));
done:
    json_decref(entry);
    return e;
}

// Writes this rank's files; *entries gets what the manifest says of them.
static err *write_files(save *s, json_t *entries) {
    err *e = NULL;
    const table *t = s->p->table;
    if (s->file >= 0) s->failed = open_files(s);
    for (int i = 0; i < t->count; i++)
        if (t->row[i].stage == s->p->m.p) TRY(save_row(s, i));
    e = s->failed;
    s->failed = NULL;
    if (e) goto done;
    if (s->file < 0) return NULL;
    TRY(close_writer(s, &s->model, entries, s->model_name, s->decl, s->decls));
    TRY(close_writer(s, &s->optim, entries, s->optim_name, s->optim_decl, s->optim_decls));
done:
    st_writer_abort(s->model);
    st_writer_abort(s->optim);
    s->model = s->optim = NULL;
    return e;
}

// ---- publishing

// Entries of all writers to rank 0.
static err *collect_entries(save *s, json_t *mine) {
    err *e = NULL;
    const mesh *m = &s->p->m;
    char *text = NULL;
    uint64_t bytes;
    if (m->d != 0) return NULL;
    if (m->rank != 0) {
        if (!(text = json_dumps(mine, JSON_COMPACT)))
            return err_new(ERR_SYSTEM, "out of memory for the manifest");
        bytes = strlen(text);
        TRY(comm_put(s->c, 0, TAG_ENTRIES, &bytes, sizeof bytes));
        TRY(comm_put(s->c, 0, TAG_ENTRIES, text, bytes));
        goto done;
    }
    json_array_extend(s->entries, mine);
    for (int i = 1; i < m->pp * m->tp; i++) {
        int peer = mesh_rank(m, 0, i / m->tp, i % m->tp);
        TRY(comm_take(s->c, peer, TAG_ENTRIES, &bytes, sizeof bytes));
        free(text);
        if (!(text = malloc(bytes))) FAIL(ERR_SYSTEM, "out of memory for the manifest");
        TRY(comm_take(s->c, peer, TAG_ENTRIES, text, bytes));
        json_t *list = json_loadb(text, bytes, 0, NULL);
        int bad = json_array_extend(s->entries, list);
        json_decref(list);
        if (bad) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    }
done:
    free(text);
    return e;
}

static err *write_text(const char *dir, const char *name, const char *text) {
    char *path = path_join(dir, name);
    err *e = text ? write_file_atomic(path, text, strlen(text))
                  : err_new(ERR_SYSTEM, "out of memory for %s", path);
    free(path);
    return e;
}

static err *write_config(save *s) {
    json_t *doc = json_deep_copy(s->o->spec->config);
    const char *name = s->p->shape.dt == DT_F32 ? "float32" : "bfloat16";
    const char *key = json_object_get(doc, "dtype") ? "dtype" : "torch_dtype";
    json_object_set_new(doc, key, json_string(name));
    char *text = json_dumps(doc, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(doc);
    err *e = write_text(s->temp, "config.json", text);
    free(text);
    return e;
}

static err *write_index(save *s) {
    err *e = NULL;
    if (s->files == 1) return NULL;
    char(*names)[80] = calloc((size_t)s->files, sizeof *names);
    const char **list = calloc((size_t)s->files, sizeof *list);
    if (!names || !list) FAIL(ERR_SYSTEM, "out of memory for the index");
    for (int i = 0; i < s->files; i++) {
        file_name(names[i], "model", i, s->files);
        list[i] = names[i];
    }
    TRY(st_write_index(s->temp, list, s->files));
done:
    free(names);
    free(list);
    return e;
}

// Every file that is not tensors, as it now lies in the directory, into the manifest.
static err *list_plain_files(save *s, const char *sub) {
    err *e = NULL;
    char *path = path_join(s->temp, sub);
    DIR *d = opendir(path);
    if (!d) FAIL(ERR_SYSTEM, "%s cannot be listed", path);
    for (struct dirent *f; (f = readdir(d));) {
        const char *dot = strrchr(f->d_name, '.');
        char name[512];
        json_t *entry;
        if (strcmp(f->d_name, "solar") == 0 || (dot && strcmp(dot, ".safetensors") == 0) ||
            f->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s%s%s", sub, *sub ? "/" : "", f->d_name);
        TRY(manifest_file(s->temp, name, &entry));
        json_array_append_new(s->entries, entry);
    }
done:
    if (d) closedir(d);
    free(path);
    return e;
}

static err *finish(save *s) {
    err *e = NULL;
    char *text = state_to_json(s->state), *solar = path_join(s->temp, "solar");
    TRY(write_config(s));
    if (is_dir(s->o->extras_from))
        TRY(copy_model_extras(s->o->extras_from, s->temp));
    else // the weights are worth saving without
        log_warn("%s is gone: its tokenizer files are not copied into the checkpoint", s->o->extras_from);
    TRY(write_index(s));
    TRY(write_text(s->temp, "solar/state.json", text));
    TRY(list_plain_files(s, ""));
    TRY(list_plain_files(s, "solar"));
    TRY(manifest_write(s->temp, s->entries));
    TRY(fsync_path(solar));
    TRY(fsync_path(s->temp));
    TRY(remove_tree(s->final)); // there only if it was put back by hand: a life begins after the newest
    TRY(checkpoint_publish(s->o->run_dir, s->temp, s->final));
done:
    free(text);
    free(solar);
    return e;
}

// ---- the whole

static void save_free(save *s) {
    free(s->final);
    free(s->temp);
    free(s->writer);
    free(s->decl);
    free(s->optim_decl);
    free(s->optim_names);
    free(s->chunk);
    free(s->piece);
    json_decref(s->entries);
    err_free(s->failed);
}

static err *prepare(save *s) {
    err *e = NULL;
    char *solar = path_join(s->temp, "solar");
    TRY(remove_tree(s->temp));
    TRY(make_dirs(solar));
done:
    free(solar);
    return e;
}

// Nothing that is not finite is ever saved: the last update may have spoilt what no step has looked at since.
static err *check_finite(part *p) {
    err *e = NULL;
    device *d = p->dev;
    for (int i = 0; i < p->weights; i++) {
        const weight *w = &p->weight[i];
        const float *data[] = {w->master, w->m, w->v};
        double sum[3];
        for (int k = 0; k < 3; k++) {
            d->ops->sumsq(d, p->work.sums, data[k], w->n);
            d->ops->download(d, &sum[k], p->work.sums, sizeof sum[k]);
        }
        TRY(d->ops->sync(d));
        if (!isfinite(sum[0] + sum[1] + sum[2]))
            FAIL(ERR_NUMERIC,
                 "tensor %s or its optimizer state is not finite any more and is not saved: lower "
                 "optimizer.lr or set optimizer.clip_norm; older checkpoints are as they were",
                 w->row->name);
    }
done:
    return e;
}

// What each rank needs before the first message.
static err *begin(save *s) {
    err *e = NULL;
    size_t buffer = (size_t)widest(s->p->table) * 4;
    s->entries = json_array();
    s->chunk = malloc(buffer);
    s->piece = malloc(buffer);
    if (!s->entries || !s->chunk || !s->piece) FAIL(ERR_SYSTEM, "out of memory for a checkpoint's buffers");
    TRY(check_finite(s->p));
    TRY(assign_writers(s));
    file_name(s->model_name, "model", s->file, s->files);
    file_name(s->optim_name, "solar/optimizer", s->file, s->files);
    TRY(declare_files(s));
    if (s->p->m.rank == 0) TRY(prepare(s));
done:
    return e;
}

err *checkpoint_save(part *p, comm *c, const save_options *o, const run_state *state) {
    err *e = NULL, *mine = NULL;
    save s = {.p = p, .c = c, .o = o, .state = state};
    json_t *entries = json_array();
    c->phase = "save";
    s.final = checkpoint_path(o->run_dir, "step-", state->step);
    s.temp = checkpoint_path(o->run_dir, ".tmp-step-", state->step);
    TRY(comm_agree(c, begin(&s)));
    if (p->m.d == 0) mine = write_files(&s, entries);
    TRY(comm_agree(c, mine));
    TRY(collect_entries(&s, entries));
    TRY(comm_agree(c, p->m.rank == 0 ? finish(&s) : NULL));
    if (p->m.rank == 0) checkpoint_retain(o->run_dir, o->keep);
done:
    if (e && p->m.rank == 0 && s.temp) err_free(remove_tree(s.temp));
    save_free(&s);
    json_decref(entries);
    return err_wrap(e, "saving the checkpoint of step %lld", (long long)state->step);
}
