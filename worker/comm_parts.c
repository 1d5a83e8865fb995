// Sums and gathers of data that is dealt out to the ranks of a group.
#include <string.h>

#include "comm_exchange.h"

typedef struct deal {
    comm *c;
    const group *g;
    dtype dt;
    int64_t units, unit, most; // most: elements of the largest part
    int64_t step;              // elements of a part in one go; a multiple of ROW_ALIGN where parts are added
} deal;

static int64_t part_at(const deal *d, int rank) { return d->units * rank / d->g->size * d->unit; }
static int64_t part_size(const deal *d, int rank) { return part_at(d, rank + 1) - part_at(d, rank); }

// step: of a sum as much as there is room for; of a gather over links, which needs none, all.
static deal make_deal(comm *c, const group *g, dtype dt, int64_t units, int64_t unit, bool gather) {
    deal d = {.c = c, .g = g, .dt = dt, .units = units, .unit = unit};
    d.most = (units + g->size - 1) / g->size * unit;
    d.step = gather && c->linked ? d.most : c->segment / g->size / ROW_ALIGN * ROW_ALIGN;
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
    if (comm_direct(d->c) || d->c->listener) return at;
    k->download(d->c->dev, stage, at, (size_t)n * dtype_size(d->dt));
    return stage;
}

// The slices that have come in and this rank's own, added in rank order, to `mine`.
static void add_slices(const deal *d, void *own, void *to, int64_t n, char *in) {
    comm *c = d->c;
    const group *g = d->g;
    size_t room = (size_t)d->step * dtype_size(d->dt);
    float *sum = (float *)c->scratch;
    if (c->linked) {
        c->dev->ops->sum_rows(c->dev, &(row_sum){.dt = d->dt,
                                                 .out_dt = d->dt,
                                                 .count = g->size,
                                                 .ld = d->step,
                                                 .n = n,
                                                 .rows = in,
                                                 .own = own,
                                                 .own_row = g->rank,
                                                 .out = to});
        return;
    }
    for (int r = 0; r < g->size; r++)
        comm_add_row(sum, r == g->rank ? own : in + (size_t)r * room, d->dt, n, r == 0);
    bool host = c->dev->ops->host_memory;
    comm_store_row(host ? to : in, d->dt, sum, n);
    if (!host) c->dev->ops->upload(c->dev, to, in, (size_t)n * dtype_size(d->dt));
}

static err *scatter_slice(const deal *d, const void *all, void *mine, int64_t at, exchange *x) {
    err *e = NULL;
    comm *c = d->c;
    const group *g = d->g;
    size_t room = (size_t)d->step * dtype_size(d->dt);
    char *in = c->linked ? c->sums : c->scratch + (size_t)COMM_SEGMENT * 4;
    char *staging = c->scratch + (size_t)COMM_SEGMENT * 8;
    int64_t n = slice_of(d, g->rank, at);
    TRY(exchange_begin(x));
    for (int r = 0; r < g->size; r++) {
        int64_t theirs = slice_of(d, r, at);
        if (r == g->rank) continue;
        if (n) TRY(exchange_post(x, false, r, in + (size_t)r * room, n, d->dt));
        void *out = on_host(d, place(d, all, part_at(d, r) + at), theirs, staging + (size_t)r * room);
        if (theirs) TRY(exchange_post(x, true, r, out, theirs, d->dt));
    }
    TRY(exchange_end(x, "a sum over ranks"));
    if (c->listener || !n) goto done;
    void *own = on_host(d, place(d, all, part_at(d, g->rank) + at), n, staging);
    add_slices(d, own, place(d, mine, at), n, in);
done:
    return e;
}

err *comm_scatter_sum(comm *c, const group *g, dtype dt, const void *all, void *mine, int64_t units,
                      int64_t unit) {
    err *e = NULL;
    deal d = make_deal(c, g, dt, units, unit, false);
    comm_kind kind = g->sum + 2;
    traffic before = c->sent[kind];
    exchange x = exchange_make(c, g, kind, c->request);
    if (g->size == 1) {
        c->dev->ops->copy(c->dev, mine, all, (size_t)(units * unit) * dtype_size(dt));
        return NULL;
    }
    for (int64_t at = 0; at < d.most; at += d.step) TRY(scatter_slice(&d, all, mine, at, &x));
    comm_tell_together(c, g, kind, before);
done:
    return e;
}

// Parts are filled where they lie; or a slice of each goes through the staging memory.
static err *gather_slice(const deal *d, void *all, int64_t at, exchange *x) {
    err *e = NULL;
    comm *c = d->c;
    const group *g = d->g;
    bool direct = comm_direct(c) || c->listener;
    size_t room = (size_t)d->step * dtype_size(d->dt);
    char *in = c->scratch, *staging = c->scratch + (size_t)COMM_SEGMENT * 4;
    int64_t n = slice_of(d, g->rank, at);
    void *own = on_host(d, place(d, all, part_at(d, g->rank) + at), n, staging);
    TRY(exchange_begin(x));
    for (int r = 0; r < g->size; r++) {
        int64_t theirs = slice_of(d, r, at);
        if (r == g->rank) continue;
        void *to = direct ? place(d, all, part_at(d, r) + at) : in + (size_t)r * room;
        if (theirs) TRY(exchange_post(x, false, r, to, theirs, d->dt));
        if (n) TRY(exchange_post(x, true, r, own, n, d->dt));
    }
    TRY(exchange_end(x, "a gather over ranks"));
    for (int r = 0; r < g->size && !direct; r++)
        if (r != g->rank)
            c->dev->ops->upload(c->dev, place(d, all, part_at(d, r) + at), in + (size_t)r * room,
                                (size_t)slice_of(d, r, at) * dtype_size(d->dt));
done:
    return e;
}

err *comm_gather_parts(comm *c, const group *g, dtype dt, void *all, int64_t units, int64_t unit) {
    err *e = NULL;
    if (g->size == 1) return NULL;
    deal d = make_deal(c, g, dt, units, unit, true);
    comm_kind kind = g->sum + 1;
    traffic before = c->sent[kind];
    exchange x = exchange_make(c, g, kind, c->request);
    for (int64_t at = 0; at < d.most; at += d.step) TRY(gather_slice(&d, all, at, &x));
    comm_tell_together(c, g, kind, before);
done:
    return e;
}
