#include "reduce.h"

#include <stdlib.h>

#include "comm_exchange.h"

// A bucket travels in slices of every rank's share, one slice at a time: receives of this rank's slice from
// all others, and sends of theirs. Between two layers, and while waiting for anything else, the next slice is
// begun when the last is complete.
enum { SLICE_TOTAL = 1 << 22 }; // elements of all receives under way

struct reducer {
    part *p;
    comm *c;
    dtype dt;     // of what travels
    int64_t step; // elements of a slice
    char *in;     // [dp][step] dt, host
    char *out;    // [dp][step] dt, host: what cannot be sent from where it lies
    float *sum;   // [step] host
    MPI_Request *request;
    exchange x;
    int ready;      // buckets that may travel, in order
    int now;        // the one that does
    int64_t at;     // its slice under way begins at this element of every share
    bool under_way; // messages are
    err *failed;    // of a slice begun while waiting for something else
};

static int64_t step_of(const mesh *m) { return SLICE_TOTAL / m->dp < 4096 ? 4096 : SLICE_TOTAL / m->dp; }

size_t reduce_scratch_bytes(const mesh *m) {
    return m->dp > 1 ? (size_t)step_of(m) * (size_t)(2 * m->dp + 1) * 4 : 0;
}

err *reduce_open(part *p, comm *c, reducer **out) {
    reducer *r = calloc(1, sizeof *r);
    *out = r;
    if (!r) return err_new(ERR_SYSTEM, "out of memory for the reduction of gradients");
    *r = (reducer){.p = p, .c = c, .dt = p->shape.reduce, .step = step_of(&p->m)};
    if (p->m.dp == 1) return NULL;
    size_t slice = (size_t)r->step * 4, dp = (size_t)p->m.dp;
    r->in = malloc(slice * dp);
    r->sum = malloc(slice);
    r->out = malloc(slice * dp);
    r->request = malloc(2 * dp * sizeof *r->request);
    if (r->in && r->sum && r->out && r->request) return NULL;
    reduce_close(r);
    *out = NULL;
    return err_new(ERR_SYSTEM, "out of memory for the reduction of gradients (%zu bytes)",
                   reduce_scratch_bytes(&p->m));
}

void reduce_close(reducer *r) {
    if (!r) return;
    if (r->c->who == r) r->c->idle = NULL, r->c->who = NULL;
    err_free(r->failed);
    free(r->in);
    free(r->sum);
    free(r->out);
    free(r->request);
    free(r);
}

// ---- one slice

static float *gradient(const reducer *r, int64_t flat) {
    return (float *)r->p->mem.base[MEM_GRAD] + (r->p->mem.base[MEM_GRAD] ? flat : 0);
}

// Rank d's slice: its first flat element, and how many.
static int64_t slice_of(const reducer *r, int d, int64_t *first) {
    const bucket *b = &r->p->bucket[r->now];
    *first = bucket_cut(b, r->p->m.dp, d) + r->at;
    int64_t left = bucket_cut(b, r->p->m.dp, d + 1) - *first;
    return left < 0 ? 0 : left < r->step ? left : r->step;
}

static char *part_of(const reducer *r, char *buffer, int d) { return buffer + (size_t)(d * r->step) * 4; }

// n gradients as they travel: where they lie, or a copy in `to`. `sum` is free between two slices.
static char *as_sent(reducer *r, float *from, int64_t n, char *to) {
    const device *dev = r->p->dev;
    bool host = dev->ops->host_memory;
    if (r->c->listener || (host && r->dt == DT_F32)) return (char *)from;
    float *f = host ? from : r->dt == DT_F32 ? (float *)(void *)to : r->sum;
    if (!host) dev->ops->download(r->p->dev, f, from, (size_t)n * 4);
    if (r->dt == DT_BF16) comm_store_row(to, DT_BF16, f, n);
    return to;
}

static err *begin_slice(reducer *r) {
    err *e = NULL;
    comm *c = r->c;
    int dp = r->p->m.dp, me = r->p->m.d;
    int64_t first, mine = slice_of(r, me, &first);
    r->x = (exchange){r->request, 0, COMM_DATA_SCATTER};
    for (int d = 0; d < dp; d++) {
        int64_t n = slice_of(r, d, &first);
        if (d == me) continue;
        if (mine) TRY(exchange_post(c, &c->dp, &r->x, false, d, part_of(r, r->in, d), mine, r->dt));
        if (!n) continue;
        char *sent = as_sent(r, gradient(r, first), n, part_of(r, r->out, d));
        TRY(exchange_post(c, &c->dp, &r->x, true, d, sent, n, r->dt));
    }
    r->under_way = true;
done:
    return e;
}

static void end_slice(reducer *r) {
    int dp = r->p->m.dp, me = r->p->m.d;
    int64_t first, n = slice_of(r, me, &first);
    r->under_way = false;
    r->at += r->step;
    if (!n || r->c->listener) return;
    char *own = as_sent(r, gradient(r, first), n, part_of(r, r->in, me));
    for (int d = 0; d < dp; d++) comm_add_row(r->sum, d == me ? own : part_of(r, r->in, d), r->dt, n, d == 0);
    r->p->dev->ops->upload(r->p->dev, gradient(r, first), r->sum, (size_t)n * 4);
}

static bool bucket_is_over(const reducer *r) {
    const bucket *b = &r->p->bucket[r->now];
    int64_t units = (b->hi - b->lo) / FLAT_UNIT, dp = r->p->m.dp;
    return r->at >= (units + dp - 1) / dp * FLAT_UNIT;
}

// ---- progress

// Begins slices as long as the one before is complete.
static err *advance(reducer *r) {
    err *e = NULL;
    bool done = true;
    for (;;) {
        if (r->under_way) {
            if (!r->c->listener) TRY(comm_test(r->x.request, r->x.count, "gradients of data ranks", &done));
            if (!done) return NULL;
            end_slice(r);
        }
        while (r->now < r->ready && bucket_is_over(r)) r->now++, r->at = 0;
        if (r->now == r->ready) return NULL;
        TRY(begin_slice(r));
    }
done:
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
    r->under_way = false;
    r->c->idle = r->p->m.dp > 1 ? while_waiting : NULL;
    r->c->who = r;
}

// ---- sums over other groups, before a bucket may travel

static bool is_kv(role r) { return r == R_K || r == R_V || r == R_KB || r == R_VB; }

static err *sum_copies(reducer *r, const bucket *b) {
    err *e = NULL;
    part *p = r->p;
    comm *c = r->c;
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (w->flat < b->lo || w->flat >= b->hi) continue;
        if (is_kv(w->row->role)) TRY(comm_sum(c, &c->kv, DT_F32, w->grad, w->n));
        if (p->shape.sequence && w->row->axis < 0) TRY(comm_sum(c, &c->tp, DT_F32, w->grad, w->n));
        if (w->row->role == R_EMBED && c->tied.size) TRY(comm_sum(c, &c->tied, DT_F32, w->grad, w->n));
    }
done:
    return e;
}

err *reduce_ready(reducer *r, int layer) {
    err *e = NULL;
    const part *p = r->p;
    while (r->ready < p->buckets && p->bucket[r->ready].layer >= layer) {
        TRY(sum_copies(r, &p->bucket[r->ready]));
        r->ready++;
    }
    TRY(take_failure(r));
    if (p->m.dp > 1) TRY(advance(r));
done:
    return e;
}

static err *wait_for_buckets(reducer *r) {
    err *e = NULL;
    while (r->now < r->ready) {
        TRY(advance(r));
        if (r->under_way) TRY(comm_wait(r->c, r->x.request, r->x.count, "gradients of data ranks"));
    }
done:
    return e;
}

err *reduce_finish(reducer *r) {
    err *e = NULL;
    part *p = r->p;
    traffic before = r->c->sent[COMM_DATA_SCATTER];
    TRY(reduce_ready(r, -1));
    r->c->idle = NULL;
    if (p->m.dp == 1) return NULL;
    TRY(wait_for_buckets(r));
    comm_tell_together(r->c, &r->c->dp, COMM_DATA_SCATTER, before);
    for (int i = 0; i < p->buckets && !p->sharded; i++) {
        const bucket *b = &p->bucket[i];
        TRY(comm_gather_parts(r->c, &r->c->dp, DT_F32, gradient(r, b->lo), (b->hi - b->lo) / FLAT_UNIT,
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
