// Sums and gathers of data that is dealt out to the ranks of a group.
#include <string.h>

#include "comm_exchange.h"

typedef struct deal {
    comm *c;
    const group *g;
    dtype dt;
    int64_t units, unit, most; // most: elements of the largest part
    int64_t step;              // elements of a part in one go
} deal;

static int64_t part_at(const deal *d, int rank) { return d->units * rank / d->g->size * d->unit; }
static int64_t part_size(const deal *d, int rank) { return part_at(d, rank + 1) - part_at(d, rank); }

static deal make_deal(comm *c, const group *g, dtype dt, int64_t units, int64_t unit) {
    deal d = {.c = c, .g = g, .dt = dt, .units = units, .unit = unit};
    d.most = (units + g->size - 1) / g->size * unit;
    d.step = COMM_SEGMENT / g->size;
    return d;
}

// Elements of a rank's part from `at` on that go in one step.
static int64_t slice_of(const deal *d, int rank, int64_t at) {
    int64_t left = part_size(d, rank) - at;
    return left < 0 ? 0 : left < d->step ? left : d->step;
}

static char *place(const deal *d, const void *base, int64_t element) {
    return (char *)base + (size_t)element * dtype_size(d->dt);
}

// Where the host finds n elements of device memory; in `stage` when it cannot read them where they are.
static void *on_host(const deal *d, void *at, int64_t n, char *stage) {
    const ops *k = d->c->dev->ops;
    if (k->host_memory || d->c->listener) return at;
    k->download(d->c->dev, stage, at, (size_t)n * dtype_size(d->dt));
    return stage;
}

static err *scatter_slice(const deal *d, const void *all, void *mine, int64_t at, exchange *x) {
    err *e = NULL;
    comm *c = d->c;
    const group *g = d->g;
    size_t room = (size_t)d->step * 4;
    float *sum = (float *)c->scratch;
    char *in = c->scratch + (size_t)COMM_SEGMENT * 4, *stage = in + (size_t)COMM_SEGMENT * 4;
    int64_t n = slice_of(d, g->rank, at);
    x->count = 0;
    for (int r = 0; r < g->size; r++) {
        int64_t theirs = slice_of(d, r, at);
        if (r == g->rank) continue;
        if (n) TRY(exchange_post(c, g, x, false, r, in + (size_t)r * room, n, d->dt));
        void *out = on_host(d, place(d, all, part_at(d, r) + at), theirs, stage + (size_t)r * room);
        if (theirs) TRY(exchange_post(c, g, x, true, r, out, theirs, d->dt));
    }
    TRY(comm_wait(c, x->request, x->count, "a sum over ranks"));
    if (c->listener || !n) goto done;
    void *own = on_host(d, place(d, all, part_at(d, g->rank) + at), n, stage);
    for (int r = 0; r < g->size; r++)
        comm_add_row(sum, r == g->rank ? own : in + (size_t)r * room, d->dt, n, r == 0);
    bool host = c->dev->ops->host_memory;
    comm_store_row(host ? place(d, mine, at) : in, d->dt, sum, n);
    if (!host) c->dev->ops->upload(c->dev, place(d, mine, at), in, (size_t)n * dtype_size(d->dt));
done:
    return e;
}

err *comm_scatter_sum(comm *c, const group *g, dtype dt, const void *all, void *mine, int64_t units,
                      int64_t unit) {
    err *e = NULL;
    deal d = make_deal(c, g, dt, units, unit);
    comm_kind kind = g->sum + 2;
    traffic before = c->sent[kind];
    exchange x = exchange_begin(c, kind);
    if (g->size == 1) {
        c->dev->ops->copy(c->dev, mine, all, (size_t)(units * unit) * dtype_size(dt));
        return NULL;
    }
    for (int64_t at = 0; at < d.most; at += d.step) TRY(scatter_slice(&d, all, mine, at, &x));
    comm_tell_together(c, g, kind, before);
done:
    return e;
}

// Host memory is filled where it lies; else a slice of every part goes through the staging memory.
static err *gather_slice(const deal *d, void *all, int64_t at, exchange *x) {
    err *e = NULL;
    comm *c = d->c;
    const group *g = d->g;
    bool host = c->dev->ops->host_memory || c->listener;
    size_t room = (size_t)d->step * 4;
    char *in = c->scratch, *stage = c->scratch + (size_t)COMM_SEGMENT * 4;
    int64_t n = slice_of(d, g->rank, at);
    void *own = on_host(d, place(d, all, part_at(d, g->rank) + at), n, stage);
    x->count = 0;
    for (int r = 0; r < g->size; r++) {
        int64_t theirs = slice_of(d, r, at);
        if (r == g->rank) continue;
        void *to = host ? place(d, all, part_at(d, r) + at) : in + (size_t)r * room;
        if (theirs) TRY(exchange_post(c, g, x, false, r, to, theirs, d->dt));
        if (n) TRY(exchange_post(c, g, x, true, r, own, n, d->dt));
    }
    TRY(comm_wait(c, x->request, x->count, "a gather over ranks"));
    for (int r = 0; r < g->size && !host; r++)
        if (r != g->rank)
            c->dev->ops->upload(c->dev, place(d, all, part_at(d, r) + at), in + (size_t)r * room,
                                (size_t)slice_of(d, r, at) * dtype_size(d->dt));
done:
    return e;
}

err *comm_gather_parts(comm *c, const group *g, dtype dt, void *all, int64_t units, int64_t unit) {
    err *e = NULL;
    if (g->size == 1) return NULL;
    deal d = make_deal(c, g, dt, units, unit);
    comm_kind kind = g->sum + 1;
    traffic before = c->sent[kind];
    exchange x = exchange_begin(c, kind);
    for (int64_t at = 0; at < d.most; at += d.step) TRY(gather_slice(&d, all, at, &x));
    comm_tell_together(c, g, kind, before);
done:
    return e;
}
