#include "reduce.h"

#include <stdlib.h>
#include <string.h>

#include "comm_exchange.h"

// A bucket travels in slices of every rank's share: receives of this rank's slice from all others, and sends
// of theirs. Linked, all slices of a bucket are queued on the device as soon as it is complete. Else one
// slice is under way at a time: between two layers, and while waiting for anything else, it is looked after,
// and the next one is begun when the last is complete.
enum {
    SLICE_TOTAL = 1 << 22, // elements of all receives under way
    LINK_TOTAL = 1 << 24,  // the same when linked
};

typedef enum slice_state { SLICE_NONE, SLICE_FETCHING, SLICE_TRAVELLING, SLICE_STORING } slice_state;

struct reducer {
    part *p;
    comm *c;
    dtype kept, dt; // gradients are; of what travels
    int64_t step;   // elements of a slice
    char *in;       // [dp][step] of at most 4 bytes each: pinned host memory; the device's when linked
    char *out;      // the same: what cannot be sent from where it lies
    float *sum;     // [step] host, pinned; NULL when linked
    MPI_Request *request;
    exchange x;
    event **complete;  // [buckets] the gradients of a bucket, as work on the device
    event *moved;      // so are the copies of the slice under way
    int ready;         // buckets that may travel, in order
    int now;           // the one that does
    int64_t at;        // its slice under way begins at this element of every share
    slice_state state; // of the slice under way; linked: none ever is
    err *failed;       // of a slice begun while waiting for something else
};

static int64_t step_of(const mesh *m, bool linked) {
    int64_t step = (linked ? LINK_TOTAL : SLICE_TOTAL) / m->dp;
    return step < 4096 ? 4096 : step / ROW_ALIGN * ROW_ALIGN;
}

static size_t slices_bytes(const mesh *m, bool linked) {
    return (size_t)step_of(m, linked) * (size_t)m->dp * 4;
}

size_t reduce_scratch_bytes(const mesh *m, bool linked) {
    if (m->dp == 1) return 0;
    return 2 * slices_bytes(m, linked) + (linked ? 0 : (size_t)step_of(m, linked) * 4);
}

// ---- memory

static err *take_host(reducer *r, size_t bytes, void *out) {
    device *d = r->p->dev;
    enum { PAGE = 4096 };
    void *p = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!p)
        return err_new(ERR_SYSTEM, "out of memory for the reduction of gradients (%zu bytes)",
                       reduce_scratch_bytes(&r->p->m, false));
    err *e = d->ops->pin(d, p, bytes);
    if (e)
        free(p);
    else
        *(void **)out = p;
    return e;
}

static err *take_memory(reducer *r) {
    err *e = NULL;
    device *d = r->p->dev;
    size_t slices = slices_bytes(&r->p->m, r->c->linked);
    if (r->c->linked) {
        TRY(d->ops->alloc(d, slices, (void **)&r->in));
        TRY(d->ops->alloc(d, slices, (void **)&r->out));
        return NULL;
    }
    TRY(take_host(r, slices, &r->in));
    TRY(take_host(r, slices, &r->out));
    TRY(take_host(r, (size_t)r->step * 4, &r->sum));
done:
    return e;
}

static void let_go(reducer *r, void *p) {
    device *d = r->p->dev;
    if (!p) return;
    if (r->c->linked) {
        d->ops->free(d, p);
        return;
    }
    d->ops->unpin(d, p);
    free(p);
}

// What is kept in bf16 loses nothing by travelling so.
static dtype smaller_type(const part *p) {
    return p->shape.grads == DT_BF16 || p->shape.reduce == DT_BF16 ? DT_BF16 : DT_F32;
}

err *reduce_open(part *p, comm *c, reducer **out) {
    err *e = NULL;
    reducer *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return err_new(ERR_SYSTEM, "out of memory for the reduction of gradients");
    *r = (reducer){
        .p = p, .c = c, .kept = p->shape.grads, .dt = smaller_type(p), .step = step_of(&p->m, c->linked)};
    if (p->m.dp > 1) {
        TRY(take_memory(r));
        r->request = malloc(2 * (size_t)p->m.dp * sizeof *r->request);
        r->complete = calloc((size_t)p->buckets, sizeof(event *));
        if (!r->request || !r->complete) FAIL(ERR_SYSTEM, "out of memory for the reduction of gradients");
        TRY(p->dev->ops->event_open(p->dev, &r->moved));
        for (int i = 0; i < p->buckets; i++) TRY(p->dev->ops->event_open(p->dev, &r->complete[i]));
    }
    *out = r;
    return NULL;
done:
    reduce_close(r);
    return e;
}

void reduce_close(reducer *r) {
    if (!r) return;
    const ops *k = r->p->dev->ops;
    if (r->c->who == r) r->c->idle = NULL, r->c->who = NULL;
    err_free(r->failed);
    for (int i = 0; r->complete && i < r->p->buckets; i++) k->event_close(r->p->dev, r->complete[i]);
    k->event_close(r->p->dev, r->moved);
    let_go(r, r->in);
    let_go(r, r->sum);
    let_go(r, r->out);
    free(r->complete);
    free(r->request);
    free(r);
}

// ---- one slice

static char *gradient(const reducer *r, int64_t flat) {
    char *base = r->p->mem.base[MEM_GRAD];
    return base ? base + (size_t)flat * dtype_size(r->kept) : NULL;
}

// Rank d's slice: its first flat element, and how many.
static int64_t slice_of(const reducer *r, int d, int64_t *first) {
    const bucket *b = &r->p->bucket[r->now];
    *first = bucket_cut(b, r->p->m.dp, d) + r->at;
    int64_t left = bucket_cut(b, r->p->m.dp, d + 1) - *first;
    return left < 0 ? 0 : left < r->step ? left : r->step;
}

static char *part_of(const reducer *r, char *buffer, int d) { return buffer + (size_t)(d * r->step) * 4; }

// Whether gradients are exchanged where they lie, as they are.
static bool in_place(const reducer *r) { return r->c->listener || (comm_direct(r->c) && r->dt == r->kept); }

// Rank d's n gradients as they travel: where they lie, or a copy in its part of `out`. What is not the host's
// has been fetched there. `sum` is free between two slices.
static char *as_sent(reducer *r, int d, int64_t first, int64_t n) {
    char *from = gradient(r, first), *to = part_of(r, r->out, d);
    if (in_place(r)) return from;
    if (r->c->linked)
        r->p->dev->ops->cast(r->p->dev, r->dt, to, r->kept, from, n);
    else if (!comm_direct(r->c) && r->dt != r->kept)
        comm_store_row(to, r->dt, memcpy(r->sum, to, (size_t)n * 4), n);
    else if (comm_direct(r->c))
        comm_store_row(to, r->dt, (float *)(void *)from, n);
    return to;
}

static err *post_slice(reducer *r) {
    err *e = NULL;
    int dp = r->p->m.dp, me = r->p->m.d;
    int64_t first, mine = slice_of(r, me, &first);
    r->x = exchange_make(r->c, &r->c->dp, COMM_DATA_SCATTER, r->request);
    TRY(exchange_begin(&r->x));
    for (int d = 0; d < dp; d++) {
        int64_t n = slice_of(r, d, &first);
        if (d == me) continue;
        if (mine) TRY(exchange_post(&r->x, false, d, part_of(r, r->in, d), mine, r->dt));
        if (n) TRY(exchange_post(&r->x, true, d, as_sent(r, d, first, n), n, r->dt));
    }
    TRY(exchange_posted(&r->x));
    r->state = SLICE_TRAVELLING;
done:
    return e;
}

// Has what is to be sent, and this rank's own, copied to the host by a queue of its own.
static void fetch_slice(reducer *r) {
    device *d = r->p->dev;
    int64_t first;
    d->ops->use(d, QUEUE_FETCH);
    d->ops->follow(d, r->complete[r->now]);
    for (int i = 0; i < r->p->m.dp; i++) {
        int64_t n = slice_of(r, i, &first);
        d->ops->fetch(d, part_of(r, r->out, i), gradient(r, first), (size_t)n * dtype_size(r->kept));
    }
    d->ops->mark(d, r->moved);
    d->ops->use(d, QUEUE_COMPUTE);
    r->state = SLICE_FETCHING;
}

static err *begin_slice(reducer *r) {
    if (comm_direct(r->c) || r->c->listener) return post_slice(r);
    fetch_slice(r);
    return NULL;
}

static void store_slice(reducer *r, int64_t first, int64_t n) {
    device *d = r->p->dev;
    char *from = (char *)r->sum;
    if (r->kept == DT_BF16) comm_store_row(from = r->in, r->kept, r->sum, n); // all in there has been added
    d->ops->use(d, QUEUE_STORE);
    d->ops->store(d, gradient(r, first), from, (size_t)n * dtype_size(r->kept));
    d->ops->mark(d, r->moved);
    d->ops->use(d, QUEUE_COMPUTE);
    r->state = SLICE_STORING;
}

static void add_linked(reducer *r, char *own, int64_t first, int64_t n) {
    r->p->dev->ops->sum_rows(r->p->dev, &(row_sum){.dt = r->dt,
                                                   .out_dt = r->kept,
                                                   .count = r->p->m.dp,
                                                   .ld = r->step * 4 / (int64_t)dtype_size(r->dt),
                                                   .n = n,
                                                   .rows = r->in,
                                                   .own = own,
                                                   .own_row = r->p->m.d,
                                                   .out = gradient(r, first)});
}

// All of it is here: the sum takes the place of this rank's own.
static void end_slice(reducer *r) {
    int dp = r->p->m.dp, me = r->p->m.d;
    int64_t first, n = slice_of(r, me, &first);
    r->state = SLICE_NONE;
    if (n && !r->c->listener) {
        char *own = as_sent(r, me, first, n);
        if (r->c->linked) {
            add_linked(r, own, first, n);
        } else {
            for (int d = 0; d < dp; d++)
                comm_add_row(r->sum, d == me ? own : part_of(r, r->in, d), r->dt, n, d == 0);
            if (comm_direct(r->c))
                comm_store_row(gradient(r, first), r->kept, r->sum, n);
            else
                store_slice(r, first, n);
        }
    }
    r->at += r->step;
}

static bool bucket_is_over(const reducer *r) {
    const bucket *b = &r->p->bucket[r->now];
    int64_t units = (b->hi - b->lo) / FLAT_UNIT, dp = r->p->m.dp;
    return r->at >= (units + dp - 1) / dp * FLAT_UNIT;
}

// ---- progress

// Carries the slice under way on as far as it goes; *done: none is under way any more.
static err *carry_on(reducer *r, bool *done) {
    err *e = NULL;
    device *d = r->p->dev;
    *done = false;
    if (r->state == SLICE_FETCHING) {
        if (!d->ops->reached(d, r->moved)) return NULL;
        TRY(post_slice(r));
    }
    if (r->state == SLICE_TRAVELLING) {
        bool here = true;
        if (!r->c->listener) TRY(comm_test(r->x.request, r->x.count, "gradients of data ranks", &here));
        if (!here) return NULL;
        end_slice(r);
    }
    if (r->state == SLICE_STORING && d->ops->reached(d, r->moved)) r->state = SLICE_NONE;
    *done = r->state == SLICE_NONE;
done:
    return e;
}

// Whether there is a slice to begin.
static bool next_slice(reducer *r) {
    while (r->now < r->ready && bucket_is_over(r)) r->now++, r->at = 0;
    return r->now < r->ready;
}

// Begins slices as long as the one before is complete.
static err *advance(reducer *r) {
    err *e = NULL;
    bool done;
    for (;;) {
        TRY(carry_on(r, &done));
        if (!done || !next_slice(r)) return NULL;
        TRY(begin_slice(r));
    }
done:
    return err_wrap(e, "reducing gradients");
}

// Queues all that is ready.
static err *queue_slices(reducer *r) {
    err *e = NULL;
    device *d = r->p->dev;
    d->ops->use(d, QUEUE_REDUCE);
    while (next_slice(r)) {
        if (r->at == 0) d->ops->follow(d, r->complete[r->now]);
        TRY(post_slice(r));
        end_slice(r);
    }
done:
    d->ops->use(d, QUEUE_COMPUTE);
    return err_wrap(e, "reducing gradients");
}

static void while_waiting(void *who) {
    reducer *r = who;
    if (!r->failed) r->failed = advance(r);
}

static err *take_failure(reducer *r) {
    err *e = r->failed;
    r->failed = NULL;
    return e;
}

void reduce_begin(reducer *r) {
    r->ready = r->now = 0;
    r->at = 0;
    r->state = SLICE_NONE;
    r->c->idle = r->p->m.dp > 1 && !r->c->linked ? while_waiting : NULL;
    r->c->who = r;
}

// ---- sums over other groups, before a bucket may travel

static bool is_kv(role r) { return r == R_K || r == R_V || r == R_KB || r == R_VB; }

static err *sum_copies(reducer *r, const bucket *b) {
    err *e = NULL;
    part *p = r->p;
    comm *c = r->c;
    dtype dt = p->shape.grads;
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (w->flat < b->lo || w->flat >= b->hi) continue;
        if (is_kv(w->row->role)) TRY(comm_sum(c, &c->kv, dt, w->grad, w->n));
        if (p->shape.sequence && w->row->axis < 0) TRY(comm_sum(c, &c->tp, dt, w->grad, w->n));
        if (w->row->role == R_EMBED && c->tied.size) TRY(comm_sum(c, &c->tied, dt, w->grad, w->n));
    }
done:
    return e;
}

err *reduce_ready(reducer *r, int layer) {
    err *e = NULL;
    part *p = r->p;
    while (r->ready < p->buckets && p->bucket[r->ready].layer >= layer) {
        TRY(sum_copies(r, &p->bucket[r->ready]));
        if (p->m.dp > 1) p->dev->ops->mark(p->dev, r->complete[r->ready]);
        r->ready++;
    }
    TRY(take_failure(r));
    if (p->m.dp > 1) TRY(r->c->linked && !r->c->listener ? queue_slices(r) : advance(r));
done:
    return e;
}

static err *all_are_here(comm *c, void *who, bool *done) {
    reducer *r = who;
    (void)c;
    err *e = advance(r);
    *done = r->now == r->ready && r->state == SLICE_NONE;
    return e;
}

// What is queued next comes behind the sums.
static void follow_sums(reducer *r) {
    device *d = r->p->dev;
    d->ops->use(d, r->c->linked ? QUEUE_REDUCE : QUEUE_STORE);
    d->ops->mark(d, r->moved);
    d->ops->use(d, QUEUE_COMPUTE);
    d->ops->follow(d, r->moved);
}

err *reduce_finish(reducer *r) {
    err *e = NULL;
    part *p = r->p;
    traffic before = r->c->sent[COMM_DATA_SCATTER];
    TRY(reduce_ready(r, -1));
    r->c->idle = NULL;
    if (p->m.dp == 1) return NULL;
    if (!r->c->linked) TRY(comm_poll_until(r->c, all_are_here, r, "gradients of data ranks"));
    follow_sums(r);
    comm_tell_together(r->c, &r->c->dp, COMM_DATA_SCATTER, before);
    for (int i = 0; i < p->buckets && !p->sharded; i++) {
        const bucket *b = &p->bucket[i];
        TRY(comm_gather_parts(r->c, &r->c->dp, r->kept, gradient(r, b->lo), (b->hi - b->lo) / FLAT_UNIT,
                              FLAT_UNIT));
    }
done:
    return err_wrap(e, "reducing gradients");
}

err *reduce_gather_weights(reducer *r) {
    err *e = NULL;
    part *p = r->p;
    for (int i = 0; i < p->buckets && p->sharded; i++) {
        const bucket *b = &p->bucket[i];
        char *w = p->mem.base[MEM_PARAM];
        if (w) w += (size_t)b->lo * dtype_size(p->shape.dt);
        TRY(comm_gather_parts(r->c, &r->c->dp, p->shape.dt, w, (b->hi - b->lo) / FLAT_UNIT, FLAT_UNIT));
    }
done:
    return err_wrap(e, "gathering weights");
}
