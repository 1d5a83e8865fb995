#include "link.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm_exchange.h"
#include "log.h"

#ifdef SOLAR_NCCL
#include <nccl.h>

// ---- errors

static err *nccl_error(const comm *c, gpu_link *l, ncclResult_t rc, const char *what) {
    const char *more = l ? ncclGetLastError(l) : "";
    return err_new(ERR_PEER, "phase %s, step %lld: NCCL, %s: %s%s%s (NCCL_DEBUG=INFO says more)", c->phase,
                   (long long)c->step, what, ncclGetErrorString(rc), more && *more ? ": " : "",
                   more ? more : "");
}

// A call on a link that does not block may still be at work when it returns; no other may follow before it is
// through. It waits for the library and other ranks' calls, not for the device.
static err *settle(comm *c, gpu_link *l, ncclResult_t rc, const char *what) {
    err *e = NULL;
    double start = now_seconds();
    for (long polls = 1; rc == ncclInProgress; polls++) {
        ncclResult_t asked = ncclCommGetAsyncError(l, &rc);
        if (asked != ncclSuccess) rc = asked;
        sched_yield();
        if (polls % 64 == 0) TRY(comm_impatient(c, what, now_seconds() - start));
    }
    if (rc != ncclSuccess) e = nccl_error(c, l, rc, what);
done:
    c->waited += now_seconds() - start;
    if (e) links_abort(c);
    return e;
}

// ---- all links of a communicator

typedef struct links {
    gpu_link **at[8];
    int count;
} links;

static links all_links(comm *c) {
    links x = {.at = {&c->tp.link, &c->dp.link, &c->kv.link, &c->tied.link}, .count = 4};
    for (int i = 0; i < 4; i++) x.at[x.count++] = &c->channel[i];
    return x;
}

static err *check_links(comm *c) {
    links x = all_links(c);
    for (int i = 0; i < x.count; i++) {
        ncclResult_t state = ncclSuccess;
        if (!*x.at[i] || c->aborted) continue;
        ncclResult_t rc = ncclCommGetAsyncError(*x.at[i], &state);
        if (rc == ncclSuccess) rc = state;
        if (rc != ncclSuccess && rc != ncclInProgress) return nccl_error(c, *x.at[i], rc, "work on the GPU");
    }
    return NULL;
}

static err *watch(void *who, double waited) {
    comm *c = who;
    err *e = check_links(c);
    if (!e) e = comm_impatient(c, "work on the GPU", waited);
    if (e) links_abort(c);
    return e;
}

// The groups keep the name of what was torn down: nobody may take them for ones that never had a link.
void links_abort(comm *c) {
    links x = all_links(c);
    if (c->aborted) return;
    c->aborted = true;
    for (int i = 0; i < x.count; i++)
        if (*x.at[i]) ncclCommAbort(*x.at[i]);
}

static err *usable(const comm *c) {
    if (!c->aborted) return NULL;
    return err_new(ERR_PEER, "phase %s, step %lld: the links between the GPUs were torn down after an error",
                   c->phase, (long long)c->step);
}

// ---- opening

static err *start_link(comm *c, int size, int rank, const ncclUniqueId *id, gpu_link **out) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t rc = ncclCommInitRankConfig(out, size, *id, rank, &config);
    return rc == ncclSuccess || rc == ncclInProgress ? NULL : nccl_error(c, NULL, rc, "opening a link");
}

static err *make_id(const comm *c, ncclUniqueId *id) {
    ncclResult_t rc = ncclGetUniqueId(id);
    return rc == ncclSuccess ? NULL : nccl_error(c, NULL, rc, "naming a link");
}

static err *open_group(comm *c, group *g) {
    err *e = NULL;
    ncclUniqueId id;
    if (g->size <= 1) return NULL;
    if (g->rank == 0) TRY(make_id(c, &id));
    TRY(comm_broadcast(c, g, &id, sizeof id, 0));
    TRY(start_link(c, g->size, g->rank, &id, &g->link));
    TRY(settle(c, g->link, ncclInProgress, "opening a link"));
done:
    return e;
}

// Of every rank: the links on which it sends, forward and backward. The neighbours find theirs among them.
typedef struct out_ids {
    ncclUniqueId forward, backward;
} out_ids;

static err *open_channels(comm *c) {
    err *e = NULL;
    const mesh *m = &c->m;
    out_ids mine, *all = NULL;
    if (m->pp == 1) return NULL;
    int next = mesh_rank(m, m->d, (m->p + 1) % m->pp, m->t),
        last = mesh_rank(m, m->d, (m->p + m->pp - 1) % m->pp, m->t);
    gpu_link **channel = c->channel - QUEUE_FORWARD_OUT;
    if (!(all = calloc((size_t)m->world, sizeof *all)))
        FAIL(ERR_SYSTEM, "out of memory for the names of links");
    TRY(make_id(c, &mine.forward));
    TRY(make_id(c, &mine.backward));
    TRY(comm_collect(c, &mine, all, sizeof mine));
    // All are begun before any is waited for: they form rings.
    TRY(start_link(c, 2, 0, &mine.forward, &channel[QUEUE_FORWARD_OUT]));
    TRY(start_link(c, 2, 1, &all[last].forward, &channel[QUEUE_FORWARD_IN]));
    TRY(start_link(c, 2, 0, &mine.backward, &channel[QUEUE_BACKWARD_OUT]));
    TRY(start_link(c, 2, 1, &all[next].backward, &channel[QUEUE_BACKWARD_IN]));
    for (int i = 0; i < 4; i++) TRY(settle(c, c->channel[i], ncclInProgress, "opening a link"));
done:
    free(all);
    return e;
}

err *links_open(comm *c) {
    err *e = NULL;
    TRY(open_group(c, &c->tp));
    TRY(open_group(c, &c->dp));
    TRY(open_group(c, &c->kv));
    TRY(open_group(c, &c->tied));
    TRY(open_channels(c));
    c->dev->ops->watch(c->dev, watch, c);
done:
    return err_wrap(e, "links between the GPUs (mesh.transport: mpi does without)");
}

// What is queued is done first; then each end says that it is through, and all of them wait for each other.
void links_close(comm *c) {
    links x = all_links(c);
    ncclResult_t state;
    if (c->linked && !c->listener) c->dev->ops->watch(c->dev, NULL, NULL);
    if (c->aborted) return;
    for (int i = 0; i < x.count; i++)
        if (*x.at[i]) ncclCommFinalize(*x.at[i]);
    for (int i = 0; i < x.count; i++) {
        if (!*x.at[i]) continue;
        double start = now_seconds();
        while (ncclCommGetAsyncError(*x.at[i], &state) == ncclSuccess && state == ncclInProgress &&
               !(c->limit > 0 && now_seconds() - start > c->limit))
            sched_yield();
        ncclCommDestroy(*x.at[i]);
        *x.at[i] = NULL;
    }
}

const char *links_version(char out[32]) {
    int v = 0;
    ncclGetVersion(&v);
    snprintf(out, 32, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    return out;
}

// ---- messages

static ncclDataType_t nccl_type(dtype dt) { return dt == DT_F32 ? ncclFloat32 : ncclBfloat16; }

static cudaStream_t stream_of(const comm *c) { return c->dev->ops->native_queue(c->dev); }

static err *expect(comm *c, gpu_link *l, ncclResult_t rc, const char *what) {
    return rc == ncclSuccess || rc == ncclInProgress ? NULL : nccl_error(c, l, rc, what);
}

err *link_begin(const comm *c) {
    err *e = usable(c);
    if (e) return e;
    ncclResult_t rc = ncclGroupStart();
    return rc == ncclSuccess ? NULL : nccl_error(c, NULL, rc, "beginning a group of messages");
}

err *link_post(comm *c, gpu_link *l, bool send, int peer, void *buf, int64_t n, dtype dt) {
    if (send) return expect(c, l, ncclSend(buf, (size_t)n, nccl_type(dt), peer, l, stream_of(c)), "ncclSend");
    return expect(c, l, ncclRecv(buf, (size_t)n, nccl_type(dt), peer, l, stream_of(c)), "ncclRecv");
}

err *link_end(comm *c, gpu_link *l) { return settle(c, l, ncclGroupEnd(), "a group of messages"); }

err *link_gather(comm *c, gpu_link *l, const void *mine, void *all, int64_t n, dtype dt) {
    err *e = usable(c);
    return e ? e
             : settle(c, l, ncclAllGather(mine, all, (size_t)n, nccl_type(dt), l, stream_of(c)),
                      "ncclAllGather");
}

#else

const char *links_version(char out[32]) {
    out[0] = 0;
    return NULL;
}

static err *absent(void) {
    return err_new(ERR_CONFIG,
                   "links between GPUs: this program was built without NCCL; use mesh.transport: mpi, or "
                   "install NCCL's header and library and build again");
}

err *links_open(comm *c) {
    (void)c;
    return absent();
}

void links_abort(comm *c) { (void)c; }
void links_close(comm *c) { (void)c; }

err *link_begin(const comm *c) {
    (void)c;
    return absent();
}

err *link_post(comm *c, gpu_link *l, bool send, int peer, void *buf, int64_t n, dtype dt) {
    (void)c, (void)l, (void)send, (void)peer, (void)buf, (void)n, (void)dt;
    return absent();
}

err *link_end(comm *c, gpu_link *l) {
    (void)c, (void)l;
    return absent();
}

err *link_gather(comm *c, gpu_link *l, const void *mine, void *all, int64_t n, dtype dt) {
    (void)c, (void)l, (void)mine, (void)all, (void)n, (void)dt;
    return absent();
}

#endif
