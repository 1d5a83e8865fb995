#include "snapshot.h"

#include <string.h>

enum { TAG_SNAPSHOT = 20, MESSAGE = 8 << 20 }; // bytes of a message, at most what the staging buffer holds

static const weight *local_weight(const part *p, const tensor_row *r) {
    for (int i = 0; i < p->weights; i++)
        if (p->weight[i].row == r && !p->weight[i].tied) return &p->weight[i];
    return NULL;
}

static void take_state(const part *p, const save_piece *x, char *memory) {
    optim_take(p, local_weight(p, x->row), &x->copy, memory + x->offset);
}

// ---- model tensors: every distinct slice goes to the writer

// Who gives the slice that tensor rank t holds as the first: the writer itself where it holds the same.
static int giver(const tensor_row *r, int tp, int t, int writer) {
    slice a = tensor_slice(r, tp, t), b = tensor_slice(r, tp, writer);
    return a.row0 == b.row0 && a.rows == b.rows && a.col0 == b.col0 && a.cols == b.cols ? writer : t;
}

static err *give(const part *p, comm *c, const char *from, size_t bytes, int peer) {
    const ops *k = p->dev->ops;
    err *e = NULL;
    for (size_t at = 0; !e && at < bytes; at += MESSAGE) {
        size_t n = bytes - at < MESSAGE ? bytes - at : MESSAGE;
        if (!k->host_memory) k->download(p->dev, c->scratch, from + at, n);
        e = comm_put(c, peer, TAG_SNAPSHOT, k->host_memory ? from + at : c->scratch, n);
    }
    return e;
}

static err *receive(comm *c, char *to, size_t bytes, int peer) {
    err *e = NULL;
    for (size_t at = 0; !e && at < bytes; at += MESSAGE)
        e = comm_take(c, peer, TAG_SNAPSHOT, to + at, bytes - at < MESSAGE ? bytes - at : MESSAGE);
    return e;
}

// to: in the writer's snapshot; NULL elsewhere.
static err *take_model(const part *p, comm *c, const tensor_row *r, int writer, char *to) {
    const weight *w = local_weight(p, r);
    size_t element = dtype_size(p->shape.dt), at = 0;
    err *e = NULL;
    for (int t = 0; !e && t < p->m.tp; t++) {
        slice s = tensor_slice(r, p->m.tp, t);
        size_t bytes = (size_t)(s.rows * s.cols) * element;
        int from = giver(r, p->m.tp, t, writer);
        if (s.copy > 0 || !bytes) continue;
        if (from == writer && writer == p->m.t)
            p->dev->ops->fetch(p->dev, to + at, w->w, bytes);
        else if (p->m.t == from)
            e = give(p, c, w->w, bytes, mesh_rank(&p->m, p->m.d, p->m.p, writer));
        else if (p->m.t == writer)
            e = receive(c, to + at, bytes, mesh_rank(&p->m, p->m.d, p->m.p, from));
        at += bytes;
    }
    return e;
}

static char *place_of(const save_plan *plan, const tensor_row *r, char *memory) {
    for (int i = 0; i < plan->pieces; i++)
        if (plan->piece[i].kind == KIND_MODEL && plan->piece[i].row == r)
            return memory + plan->piece[i].offset;
    return NULL;
}

static err *copy_all(const part *p, comm *c, const save_plan *plan, char *memory) {
    err *e = NULL;
    for (int i = 0; i < p->table->count; i++) {
        const tensor_row *r = &p->table->row[i];
        int writer = plan->writer[i];
        if (r->stage != p->m.p || writer / p->m.tp != p->m.d) continue;
        TRY(take_model(p, c, r, writer % p->m.tp, place_of(plan, r, memory)));
    }
    for (int i = 0; i < plan->pieces; i++)
        if (plan->piece[i].kind != KIND_MODEL) take_state(p, &plan->piece[i], memory);
done:
    return e;
}

err *snapshot_take(part *p, comm *c, const save_plan *plan, char *memory) {
    const ops *k = p->dev->ops;
    k->mark(p->dev, p->unsaved);
    k->use(p->dev, QUEUE_FETCH);
    k->follow(p->dev, p->unsaved);
    err *e = copy_all(p, c, plan, memory);
    k->mark(p->dev, p->saved);
    k->use(p->dev, QUEUE_COMPUTE);
    if (!e) e = k->failure(p->dev);
    return err_wrap(e, "taking the snapshot");
}

// ---- reading it

// Elements first..first+n-1 of row `row` of a tensor split by columns.
static void copy_row(const save_piece *x, int tp, size_t element, const char *slices, int64_t row,
                     int64_t first, int64_t n, char *to) {
    size_t base = 0;
    for (int t = 0; t < tp; t++) {
        slice s = tensor_slice(x->row, tp, t);
        if (s.copy > 0) continue;
        int64_t lo = s.col0 > first ? s.col0 : first;
        int64_t hi = s.col0 + s.cols < first + n ? s.col0 + s.cols : first + n;
        if (hi > lo)
            memcpy(to + (size_t)(lo - first) * element,
                   slices + base + (size_t)(row * s.cols + lo - s.col0) * element,
                   (size_t)(hi - lo) * element);
        base += (size_t)(s.rows * s.cols) * element;
    }
}

const char *snapshot_bytes(const save_piece *x, int tp, size_t element, const char *memory, size_t at,
                           size_t count, char *buffer) {
    const char *data = memory + x->offset;
    int64_t width = x->row->shape[1], i = (int64_t)(at / element), end = i + (int64_t)(count / element);
    if (x->kind != KIND_MODEL) return optim_read(&x->copy, data, i, end - i, buffer);
    if (x->row->axis != 1 || tp == 1) return data + at;
    for (char *to = buffer; i < end;) {
        int64_t col = i % width, n = width - col < end - i ? width - col : end - i;
        copy_row(x, tp, element, data, i / width, col, n, to);
        to += (size_t)n * element;
        i += n;
    }
    return buffer;
}
