// Messages from rank to rank: of device memory between pipeline stages, of host memory for files.
//
// Device memory that is not the host's goes one of two ways. Linked, a message is queued on a queue of its
// own kind and direction, so that none waits behind another that has to wait itself; events order it with the
// work. Through the host, it is copied into pinned memory by a queue of its own, sent when the copy is there
// (whoever waits for anything looks: stages_advance), and copied up on the other side the same way. The host
// waits for neither copy, but for a send whose buffer is wanted again.
#include <limits.h>
#include <stdlib.h>

#include "comm_exchange.h"
#include "link.h"

typedef enum stage_state {
    STAGE_FREE,
    STAGE_COPYING,
    STAGE_SENDING,
    STAGE_RECEIVING,
    STAGE_STORING
} stage_state;

struct stage {
    stage *next;
    stage_state state;
    char *host; // [room], pinned; NULL when linked
    size_t room;
    event *ready; // the work that was queued before is done: the buffer may be read, or written
    event *moved; // so is the copy, or the message when linked
    MPI_Request request;
    // of a send: whom and what; of a receive: where to
    int peer, tag;
    dtype dt;
    int64_t n;
    void *target;
    uint64_t number; // sends leave in this order
};

// ---- stages

static void close_stage(comm *c, stage *s) {
    const ops *k = c->dev->ops;
    k->unpin(c->dev, s->host);
    k->event_close(c->dev, s->ready);
    k->event_close(c->dev, s->moved);
    free(s->host);
    free(s);
}

static err *open_stage(comm *c, size_t bytes, stage **out) {
    err *e = NULL;
    const ops *k = c->dev->ops;
    enum { ALIGN = 4096 }; // whole pages, so that no two pinned pieces share one
    size_t room = c->linked ? 0 : (bytes + ALIGN - 1) / ALIGN * ALIGN;
    stage *s = calloc(1, sizeof *s);
    if (!s) return err_new(ERR_SYSTEM, "out of memory for a pipeline message");
    s->room = room;
    s->request = MPI_REQUEST_NULL;
    TRY(k->event_open(c->dev, &s->ready));
    TRY(k->event_open(c->dev, &s->moved));
    if (room) {
        char *host = aligned_alloc(ALIGN, room);
        if (!host) FAIL(ERR_SYSTEM, "out of memory for a pipeline message (%zu bytes)", bytes);
        if ((e = k->pin(c->dev, host, room))) {
            free(host);
            goto done;
        }
        s->host = host;
    }
    s->next = c->stages;
    *out = c->stages = s;
    return NULL;
done:
    close_stage(c, s);
    return e;
}

void stages_close(comm *c) {
    while (c->stages) {
        stage *s = c->stages;
        c->stages = s->next;
        close_stage(c, s);
    }
}

static bool fits(const comm *c, const stage *s, size_t bytes) { return c->linked || s->room >= bytes; }

err *comm_reserve(comm *c, int count, size_t bytes) {
    err *e = NULL;
    stage *s;
    if (c->listener || c->dev->ops->host_memory) return NULL;
    for (s = c->stages; s; s = s->next) count -= fits(c, s, bytes);
    for (; count > 0; count--) TRY(open_stage(c, bytes, &s));
done:
    return e;
}

static stage *find_stage(comm *c, size_t bytes) {
    for (stage *s = c->stages; s; s = s->next) {
        if (s->state == STAGE_STORING && c->dev->ops->reached(c->dev, s->moved)) s->state = STAGE_FREE;
        if (s->state == STAGE_FREE && fits(c, s, bytes)) return s;
    }
    return NULL;
}

static err *any_is_free(comm *c, void *bytes, bool *done) {
    *done = find_stage(c, *(size_t *)bytes) != NULL;
    return NULL;
}

// One that is free, or will be when a copy to the device is done; a new one when all are at something that
// may take a peer.
static err *take_stage(comm *c, size_t bytes, stage **out) {
    err *e = NULL;
    bool soon = false;
    for (const stage *s = c->stages; s; s = s->next) soon |= s->state == STAGE_STORING && fits(c, s, bytes);
    *out = find_stage(c, bytes);
    if (!*out && soon) {
        TRY(comm_poll_until(c, any_is_free, &bytes, "a copy to the device"));
        *out = find_stage(c, bytes);
    }
    if (!*out) TRY(open_stage(c, bytes, out));
done:
    return e;
}

// The copies end in the order in which they were begun; messages leave in the same.
static stage *oldest_copy(comm *c) {
    stage *oldest = NULL;
    for (stage *s = c->stages; s; s = s->next)
        if (s->state == STAGE_COPYING && (!oldest || s->number < oldest->number)) oldest = s;
    return oldest;
}

err *stages_advance(comm *c) {
    err *e = NULL;
    for (stage *s; (s = oldest_copy(c)) && c->dev->ops->reached(c->dev, s->moved);) {
        MPI_TRY(
            MPI_Isend(s->host, (int)s->n, comm_mpi_type(s->dt), s->peer, s->tag, c->world.comm, &s->request),
            "MPI_Isend");
        s->state = STAGE_SENDING;
    }
done:
    return e;
}

// ---- sending and receiving

static queue queue_of(comm_kind kind, bool send) {
    if (kind == COMM_FORWARD) return send ? QUEUE_FORWARD_OUT : QUEUE_FORWARD_IN;
    return send ? QUEUE_BACKWARD_OUT : QUEUE_BACKWARD_IN;
}

// What is queued next on q comes behind all work queued so far.
static void turn_to(comm *c, stage *s, queue q) {
    const ops *k = c->dev->ops;
    k->mark(c->dev, s->ready);
    k->use(c->dev, q);
    k->follow(c->dev, s->ready);
}

static void turn_back(comm *c, stage *s) {
    c->dev->ops->mark(c->dev, s->moved);
    c->dev->ops->use(c->dev, QUEUE_COMPUTE);
}

// A channel has two ends: 0 sends, 1 receives.
static err *queue_message(comm *c, stage *s, queue q, dtype dt, void *buf, int64_t n) {
    err *e = NULL;
    bool send = q == QUEUE_FORWARD_OUT || q == QUEUE_BACKWARD_OUT;
    gpu_link *l = c->channel[q - QUEUE_FORWARD_OUT];
    turn_to(c, s, q);
    TRY(link_begin(c));
    TRY(link_post(c, l, send, send, buf, n, dt));
    TRY(link_end(c, l));
done:
    turn_back(c, s);
    return e;
}

static void tell(comm *c, comm_event e, transfer *t, size_t bytes) {
    t->id = e.id = ++c->transfers;
    e.sent = (traffic){1, bytes};
    c->listener->hear(c->listener, &e);
}

static err *check_count(int64_t n) {
    if (n <= INT_MAX) return NULL;
    return err_new(ERR_CONFIG, "a pipeline message of %lld elements: use a smaller micro_batch",
                   (long long)n);
}

err *comm_send(comm *c, comm_kind kind, int peer, int tag, dtype dt, const void *buf, int64_t n,
               transfer *t) {
    err *e = NULL;
    size_t bytes = (size_t)n * dtype_size(dt);
    stage *s;
    *t = TRANSFER_NONE;
    TRY(check_count(n));
    comm_count(c, kind, 1, bytes);
    if (c->listener) {
        tell(c, (comm_event){.act = COMM_ACT_SEND, .kind = kind, .peer = peer, .tag = tag}, t, bytes);
        return NULL;
    }
    if (c->dev->ops->host_memory) {
        MPI_TRY(MPI_Isend(buf, (int)n, comm_mpi_type(dt), peer, tag, c->world.comm, &t->request),
                "MPI_Isend");
        return NULL;
    }
    TRY(take_stage(c, bytes, &s));
    t->stage = s;
    s->state = c->linked ? STAGE_SENDING : STAGE_COPYING;
    if (c->linked) return queue_message(c, s, queue_of(kind, true), dt, (void *)buf, n);
    s->number = ++c->posted;
    s->peer = peer, s->tag = tag, s->dt = dt, s->n = n;
    turn_to(c, s, QUEUE_FETCH);
    c->dev->ops->fetch(c->dev, s->host, buf, bytes);
    turn_back(c, s);
done:
    return e;
}

err *comm_receive(comm *c, comm_kind kind, int peer, int tag, dtype dt, void *buf, int64_t n, transfer *t) {
    err *e = NULL;
    size_t bytes = (size_t)n * dtype_size(dt);
    stage *s;
    *t = TRANSFER_NONE;
    TRY(check_count(n));
    if (c->listener) {
        tell(c, (comm_event){.act = COMM_ACT_RECEIVE, .peer = peer, .tag = tag}, t, bytes);
        return NULL;
    }
    if (c->dev->ops->host_memory) {
        MPI_TRY(MPI_Irecv(buf, (int)n, comm_mpi_type(dt), peer, tag, c->world.comm, &t->request),
                "MPI_Irecv");
        return NULL;
    }
    TRY(take_stage(c, bytes, &s));
    t->stage = s;
    s->state = STAGE_RECEIVING;
    s->dt = dt, s->n = n, s->target = buf;
    if (c->linked) return queue_message(c, s, queue_of(kind, false), dt, buf, n);
    c->dev->ops->mark(c->dev, s->ready);
    MPI_TRY(MPI_Irecv(s->host, (int)n, comm_mpi_type(dt), peer, tag, c->world.comm, &s->request),
            "MPI_Irecv");
done:
    return e;
}

// ---- completing

static err *stage_is_through(comm *c, void *who, bool *done) {
    stage *s = who;
    err *e = NULL;
    *done = false;
    TRY(stages_advance(c));
    if (s->state != STAGE_COPYING) TRY(comm_test(&s->request, 1, "a message between pipeline stages", done));
done:
    return e;
}

static void store_message(comm *c, stage *s) {
    const ops *k = c->dev->ops;
    k->use(c->dev, QUEUE_STORE);
    k->follow(c->dev, s->ready);
    k->store(c->dev, s->target, s->host, (size_t)s->n * dtype_size(s->dt));
    turn_back(c, s);
    k->follow(c->dev, s->moved);
}

static err *finish_stage(comm *c, stage *s) {
    err *e = NULL;
    bool receive = s->state == STAGE_RECEIVING;
    if (c->linked)
        c->dev->ops->follow(c->dev, s->moved);
    else {
        TRY(comm_poll_until(c, stage_is_through, s, "a message between pipeline stages"));
        if (receive) store_message(c, s);
    }
    s->state = receive && !c->linked ? STAGE_STORING : STAGE_FREE;
done:
    return e;
}

err *comm_finish(comm *c, transfer *t) {
    if (c->listener && t->id)
        c->listener->hear(c->listener, &(comm_event){.act = COMM_ACT_WAIT, .id = t->id});
    t->id = 0;
    stage *s = t->stage;
    t->stage = NULL;
    if (s) return finish_stage(c, s);
    if (t->request == MPI_REQUEST_NULL) return NULL;
    return comm_wait(c, &t->request, 1, "a message between pipeline stages");
}

// ---- host memory

err *comm_put(comm *c, int peer, int tag, const void *data, size_t bytes) {
    err *e = NULL;
    MPI_Request r;
    if (bytes > INT_MAX) FAIL(ERR_RUNTIME, "message of %zu bytes", bytes);
    comm_count(c, COMM_HOST, 1, bytes);
    MPI_TRY(MPI_Isend(data, (int)bytes, MPI_BYTE, peer, tag, c->world.comm, &r), "MPI_Isend");
    TRY(comm_wait(c, &r, 1, "sending tensors"));
done:
    return e;
}

err *comm_take(comm *c, int peer, int tag, void *data, size_t bytes) {
    err *e = NULL;
    MPI_Request r;
    if (bytes > INT_MAX) FAIL(ERR_RUNTIME, "message of %zu bytes", bytes);
    MPI_TRY(MPI_Irecv(data, (int)bytes, MPI_BYTE, peer, tag, c->world.comm, &r), "MPI_Irecv");
    TRY(comm_wait(c, &r, 1, "receiving tensors"));
done:
    return e;
}
