#include "save_plan.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

// ---- dealing tensors out: one list of what is to be written in a stage, the largest first

typedef struct item {
    int row, kind, t; // t: the first tensor rank that holds the slice; -1: a model tensor, any rank will do
    int64_t bytes;
    int writer;
} item;

typedef struct items {
    item *at;
    int count;
} items;

static int largest_first(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->row != y->row) return x->row < y->row ? -1 : 1;
    return x->kind != y->kind ? x->kind - y->kind : x->t - y->t;
}

static err *list_items(const part *p, int stage, items *out) {
    const table *t = p->table;
    int kinds = optim_kinds(p->shape.dt), tp = p->m.tp;
    *out = (items){calloc((size_t)t->count * (size_t)(1 + kinds * tp), sizeof(item)), 0};
    if (!out->at) return err_new(ERR_SYSTEM, "out of memory for the plan of a checkpoint");
    for (int i = 0; i < t->count; i++) {
        if (t->row[i].stage != stage) continue;
        int64_t n = tensor_elements(&t->row[i]);
        out->at[out->count++] = (item){i, KIND_MODEL, -1, n * (int64_t)dtype_size(p->shape.dt), 0};
        for (int r = 0; r < tp && !p->sharded; r++) {
            slice s = tensor_slice(&t->row[i], tp, r);
            for (int k = 0; k < kinds && s.copy == 0 && s.rows * s.cols > 0; k++) {
                int64_t element = (int64_t)dtype_size(optim_dtype(&p->shape, (optim_kind)k));
                out->at[out->count++] = (item){i, k, r, s.rows * s.cols * element, 0};
            }
        }
    }
    qsort(out->at, (size_t)out->count, sizeof *out->at, largest_first);
    return NULL;
}

// Tensor ranks that hold the slice which rank t holds as the first.
static bool holds_slice(const part *p, const item *x, int t) {
    if (x->t < 0 || x->t == t) return true;
    const tensor_row *r = &p->table->row[x->row];
    slice a = tensor_slice(r, p->m.tp, x->t), b = tensor_slice(r, p->m.tp, t);
    return a.row0 == b.row0 && a.rows == b.rows && a.col0 == b.col0 && a.cols == b.cols;
}

static err *deal(const part *p, items *list) {
    int ranks = p->m.dp * p->m.tp;
    int64_t *load = calloc((size_t)ranks, sizeof *load);
    if (!load) return err_new(ERR_SYSTEM, "out of memory for the plan of a checkpoint");
    for (int i = 0; i < list->count; i++) {
        item *x = &list->at[i];
        int best = -1;
        for (int r = 0; r < ranks; r++)
            if (holds_slice(p, x, r % p->m.tp) && (best < 0 || load[r] < load[best])) best = r;
        x->writer = best;
        load[best] += x->bytes;
    }
    free(load);
    return NULL;
}

// ---- files

typedef struct file_cut { // the files that a sequence of tensors makes
    int64_t limit, bytes;
    int files;
} file_cut;

static int next_file(file_cut *c, int64_t bytes) {
    if (c->files == 0 || c->bytes + bytes > c->limit) {
        c->files++;
        c->bytes = 0;
    }
    c->bytes += bytes;
    return c->files - 1;
}

static const item *item_of(const items *list, int row, int kind, int writer, int t) {
    for (int i = 0; i < list->count; i++) {
        const item *x = &list->at[i];
        if (x->row == row && x->kind == kind && x->writer == writer && (t < 0 || x->t == t)) return x;
    }
    return NULL;
}

// Model files that each rank of a stage makes, as the tensors of the table come to it.
static void count_model_files(const part *p, const items *list, int stage, int64_t limit, int *files) {
    const table *t = p->table;
    int ranks = p->m.dp * p->m.tp;
    for (int r = 0; r < ranks; r++) {
        file_cut cut = {.limit = limit};
        for (int i = 0; i < t->count; i++) {
            const item *x = t->row[i].stage == stage ? item_of(list, i, KIND_MODEL, r, -1) : NULL;
            if (x) next_file(&cut, x->bytes);
        }
        files[r] = cut.files;
    }
}

static err *number_stage(const part *p, int stage, int64_t limit, save_plan *out, items *mine) {
    err *e = NULL;
    items list;
    int ranks = p->m.dp * p->m.tp, me = p->m.d * p->m.tp + p->m.t;
    int *files = calloc((size_t)ranks, sizeof *files);
    TRY(list_items(p, stage, &list));
    if (!files) FAIL(ERR_SYSTEM, "out of memory for the plan of a checkpoint");
    TRY(deal(p, &list));
    count_model_files(p, &list, stage, limit, files);
    for (int r = 0; r < ranks; r++) {
        if (stage == p->m.p && r == me) out->first_model = out->all_models;
        out->all_models += files[r];
    }
    for (int i = 0; i < list.count; i++)
        if (list.at[i].kind == KIND_MODEL) out->writer[list.at[i].row] = list.at[i].writer;
    if (stage == p->m.p) {
        *mine = list;
        list.at = NULL;
    }
done:
    free(list.at);
    free(files);
    return e;
}

// ---- this rank's pieces

// room: bytes in the snapshot
static void add(save_plan *s, save_piece x, size_t element, size_t room) {
    x.bytes = (size_t)x.n * element;
    x.offset = s->bytes;
    s->bytes += (room + ALIGN - 1) / ALIGN * ALIGN;
    s->piece[s->pieces++] = x;
}

static void add_models(const part *p, const items *list, int64_t limit, save_plan *s) {
    int me = p->m.d * p->m.tp + p->m.t;
    file_cut cut = {.limit = limit};
    for (int i = 0; i < p->table->count; i++) {
        const tensor_row *r = &p->table->row[i];
        const item *x = item_of(list, i, KIND_MODEL, me, -1);
        if (!x) continue;
        slice whole = {.rows = r->shape[0], .cols = r->shape[1], .copies = 1};
        size_t element = dtype_size(p->shape.dt);
        add(s,
            (save_piece){.row = r,
                         .dt = p->shape.dt,
                         .kind = KIND_MODEL,
                         .s = whole,
                         .n = tensor_elements(r),
                         .file = next_file(&cut, x->bytes)},
            element, (size_t)tensor_elements(r) * element);
    }
    s->files = s->model_files = cut.files;
}

static bool writes_state(const part *p, const items *list, const weight *w, int row, int kind) {
    if (w->tied || w->own_n == 0) return false;
    if (p->sharded) return w->s.copy == 0;
    return item_of(list, row, kind, p->m.d * p->m.tp + p->m.t, -1) != NULL;
}

static void add_states(const part *p, const items *list, int64_t limit, save_plan *s) {
    file_cut cut = {.limit = limit};
    for (int i = 0; i < p->weights; i++) {
        const weight *w = &p->weight[i];
        for (int k = 0; k < optim_kinds(p->shape.dt); k++) {
            if (!writes_state(p, list, w, (int)(w->row - p->table->row), k)) continue;
            optim_copy copy = optim_copy_of(p, w, (optim_kind)k);
            save_piece x = {
                .row = w->row, .kind = k, .s = w->s, .at = w->own_at, .n = w->own_n, .copy = copy};
            x.dt = optim_dtype(&p->shape, (optim_kind)k);
            int64_t element = (int64_t)dtype_size(x.dt);
            x.file = s->model_files + next_file(&cut, w->own_n * element);
            add(s, x, (size_t)element, copy.bytes);
        }
    }
    s->files += cut.files;
}

err *save_plan_make(const part *p, int64_t file_bytes, save_plan *out) {
    err *e = NULL;
    items mine = {0};
    size_t most = (size_t)(p->table->count + p->weights * OPTIM_KINDS);
    *out = (save_plan){.piece = calloc(most, sizeof *out->piece),
                       .writer = calloc((size_t)p->table->count, sizeof *out->writer)};
    if (!out->piece || !out->writer) FAIL(ERR_SYSTEM, "out of memory for the plan of a checkpoint");
    for (int stage = 0; stage < p->m.pp; stage++) TRY(number_stage(p, stage, file_bytes, out, &mine));
    add_models(p, &mine, file_bytes, out);
    add_states(p, &mine, file_bytes, out);
done:
    free(mine.at);
    if (e) save_plan_free(out);
    return e;
}

void save_plan_free(save_plan *s) {
    free(s->piece);
    free(s->writer);
    *s = (save_plan){0};
}

const char *save_kind_suffix(int kind) { return kind == KIND_MODEL ? "" : optim_suffix((optim_kind)kind); }
