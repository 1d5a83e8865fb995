#include "comm.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm_exchange.h"
#include "link.h"
#include "log.h"
#include "roll_call.h"

enum { SPINS = 4096 }; // polls before giving up the core

size_t comm_scratch_bytes(void) { return (size_t)COMM_SEGMENT * 4 * 3; }
size_t comm_link_scratch_bytes(void) { return (size_t)LINK_SEGMENT * 4; }

err *comm_mpi_error(int rc, const char *what) {
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(rc, text, &length);
    return err_new(ERR_PEER, "%s: MPI says: %s", what, text);
}

err *comm_test(MPI_Request *r, int n, const char *what, bool *done) {
    err *e = NULL;
    int ready = 0;
    for (int i = 0; i < n; i++) {
        int flag = 0;
        MPI_TRY(MPI_Test(&r[i], &flag, MPI_STATUS_IGNORE), what);
        ready += flag;
    }
    *done = ready == n;
done:
    return e;
}

// Seconds of waiting after which a signal is taken for that of a launcher which has lost a rank, ends the
// others, and will kill them within a second.
static const double end_patience = 0.3;

err *comm_impatient(comm *c, const char *what, double waited) {
    if ((c->limit > 0 && waited > c->limit) || roll_is_called(c)) return roll_call(c, what);
    if (c->ending && !c->reported && waited > end_patience && c->ending())
        roll_report(c, what, waited, "this process is being ended", "");
    return NULL;
}

err *comm_poll_until(comm *c, comm_poll f, void *who, const char *what) {
    err *e = NULL;
    if (c->listener) return NULL; // nothing is under way
    double start = now_seconds();
    bool done = false;
    for (long polls = 0; !done; polls++) {
        TRY(f(c, who, &done));
        if (!done && c->idle && polls % 64 == 0) c->idle(c->who);
        if (!done && c->stages) TRY(stages_advance(c));
        if (done || polls < SPINS) continue;
        sched_yield(); // ranks may outnumber cores
        if (polls % 256 == 0) TRY(comm_impatient(c, what, now_seconds() - start));
    }
done:
    c->waited += now_seconds() - start;
    return e;
}

typedef struct requests {
    MPI_Request *r;
    int n;
    const char *what;
} requests;

static err *requests_done(comm *c, void *who, bool *done) {
    const requests *all = who;
    (void)c;
    return comm_test(all->r, all->n, all->what, done);
}

err *comm_wait(comm *c, MPI_Request *r, int n, const char *what) {
    return comm_poll_until(c, requests_done, &(requests){r, n, what}, what);
}

static err *wait_one(comm *c, MPI_Request *r, const char *what) { return comm_wait(c, r, 1, what); }

// ---- groups

static err *split(MPI_Comm from, int color, int key, comm_kind sum, group *out) {
    err *e = NULL;
    *out = (group){.comm = MPI_COMM_NULL, .sum = sum};
    MPI_TRY(MPI_Comm_split(from, color, key, &out->comm), "MPI_Comm_split");
    if (out->comm == MPI_COMM_NULL) return NULL;
    MPI_Comm_set_errhandler(out->comm, MPI_ERRORS_RETURN);
    MPI_Comm_size(out->comm, &out->size);
    MPI_Comm_rank(out->comm, &out->rank);
done:
    return e;
}

static err *split_all(comm *c, int64_t kv_heads, bool tied) {
    err *e = NULL;
    const mesh *m = &c->m;
    int copies = m->tp > kv_heads ? m->tp / (int)kv_heads : 1;
    bool end = m->p == 0 || m->p == m->pp - 1;
    TRY(split(MPI_COMM_WORLD, 0, m->rank, COMM_CONTROL, &c->world));
    TRY(split(MPI_COMM_WORLD, m->p * m->dp + m->d, m->t, COMM_TENSOR_SUM, &c->tp));
    TRY(split(MPI_COMM_WORLD, m->p * m->tp + m->t, m->d, COMM_DATA_SUM, &c->dp));
    TRY(split(c->tp.comm, m->t / copies, m->t, COMM_KV_SUM, &c->kv));
    TRY(split(MPI_COMM_WORLD, tied && m->pp > 1 && end ? m->d * m->tp + m->t : MPI_UNDEFINED, m->p,
              COMM_TIED_SUM, &c->tied));
done:
    return e;
}

// The same groups by arithmetic.
static void plan_groups(comm *c, int64_t kv_heads, bool tied) {
    const mesh *m = &c->m;
    int copies = m->tp > kv_heads ? m->tp / (int)kv_heads : 1;
    bool end = m->p == 0 || m->p == m->pp - 1;
    c->world = (group){NULL, MPI_COMM_NULL, m->world, m->rank, COMM_CONTROL};
    c->tp = (group){NULL, MPI_COMM_NULL, m->tp, m->t, COMM_TENSOR_SUM};
    c->dp = (group){NULL, MPI_COMM_NULL, m->dp, m->d, COMM_DATA_SUM};
    c->kv = (group){NULL, MPI_COMM_NULL, copies, m->t % copies, COMM_KV_SUM};
    c->tied = (group){.comm = MPI_COMM_NULL, .sum = COMM_TIED_SUM};
    if (tied && m->pp > 1 && end) c->tied = (group){NULL, MPI_COMM_NULL, 2, m->p > 0, COMM_TIED_SUM};
}

static err *new_comm(const mesh *m, device *dev, comm **out) {
    comm *c = calloc(1, sizeof *c);
    char *scratch = malloc(comm_scratch_bytes());
    int most = m->tp > m->dp ? m->tp : m->dp;
    MPI_Request *request = malloc(2 * sizeof *request * (size_t)(most > 2 ? most : 2));
    *out = c;
    if (!c || !scratch || !request) {
        free(c);
        free(scratch);
        free(request);
        *out = NULL;
        return err_new(ERR_SYSTEM, "out of memory for communication buffers (%zu bytes)",
                       comm_scratch_bytes());
    }
    *c = (comm){.m = *m,
                .dev = dev,
                .phase = "start",
                .scratch = scratch,
                .request = request,
                .segment = COMM_SEGMENT};
    err *e = dev->ops->pin(dev, scratch, comm_scratch_bytes());
    if (!e) return NULL;
    free(c);
    free(scratch);
    free(request);
    *out = NULL;
    return e;
}

err *comm_open(const mesh *m, device *dev, int64_t kv_heads, bool tied, double limit, comm **out) {
    err *e = NULL;
    comm *c = NULL;
    *out = NULL;
    TRY(new_comm(m, dev, &c));
    c->limit = limit;
    gethostname(c->host, sizeof c->host - 1);
    TRY(split_all(c, kv_heads, tied));
    c->hosts = calloc((size_t)m->world, sizeof *c->hosts);
    if (!c->hosts) FAIL(ERR_SYSTEM, "out of memory for the names of %d hosts", m->world);
    TRY(comm_collect(c, c->host, c->hosts, sizeof c->host));
    *out = c;
    return NULL;
done:
    comm_close(c);
    return e;
}

err *comm_open_plan(const mesh *m, device *dev, int64_t kv_heads, bool tied, comm_listener *l, comm **out) {
    err *e = new_comm(m, dev, out);
    if (e) return e;
    (*out)->listener = l;
    plan_groups(*out, kv_heads, tied);
    return NULL;
}

static void close_group(group *g) {
    if (g->size && g->comm != MPI_COMM_NULL) MPI_Comm_free(&g->comm);
}

err *comm_link(comm *c) {
    err *e = NULL;
    c->linked = true;
    c->segment = LINK_SEGMENT;
    err *mine = c->dev->ops->alloc(c->dev, comm_link_scratch_bytes(), (void **)&c->sums);
    if (c->listener) return mine;
    TRY(comm_agree(c, mine));
    TRY(links_open(c));
done:
    return e;
}

void comm_close(comm *c) {
    if (!c) return;
    links_close(c);
    stages_close(c);
    if (c->sums) c->dev->ops->free(c->dev, c->sums);
    if (c->scratch) c->dev->ops->unpin(c->dev, c->scratch);
    close_group(&c->tied);
    close_group(&c->kv);
    close_group(&c->dp);
    close_group(&c->tp);
    close_group(&c->world);
    free(c->scratch);
    free(c->request);
    free(c->hosts);
    free(c);
}

// ---- what is sent is counted

const char *comm_kind_name(comm_kind k) {
    static const char *const name[COMM_KINDS] = {
        "tensor sum", "tensor gather", "tensor scatter", "data sum", "data gather", "data scatter",
        "kv sum",     "kv gather",     "kv scatter",     "tied sum", "tied gather", "tied scatter",
        "forward",    "backward",      "control",        "host",
    };
    return name[k];
}

static comm_kind gather_kind(const group *g) { return g->sum == COMM_CONTROL ? COMM_CONTROL : g->sum + 1; }

void comm_count(comm *c, comm_kind k, uint64_t messages, uint64_t bytes) {
    c->sent[k].messages += messages;
    c->sent[k].bytes += bytes;
}

// Tells the listener what was counted of a kind since `before`.
void comm_tell_together(comm *c, const group *g, comm_kind k, traffic before) {
    if (!c->listener) return;
    traffic sent = {c->sent[k].messages - before.messages, c->sent[k].bytes - before.bytes};
    c->listener->hear(c->listener, &(comm_event){.act = COMM_ACT_TOGETHER, .kind = k, .g = g, .sent = sent});
}

double comm_now(const comm *c) { return c->listener ? c->listener->now(c->listener) : now_seconds(); }

// ---- elements on the host

MPI_Datatype comm_mpi_type(dtype dt) { return dt == DT_F32 ? MPI_FLOAT : MPI_UINT16_T; }

void comm_add_row(float *sum, const char *x, dtype dt, int64_t n, bool first) {
    const float *f = (const float *)x;
    const bf16 *h = (const bf16 *)x;
    if (dt == DT_F32 && first)
        memcpy(sum, f, (size_t)n * 4);
    else if (dt == DT_F32)
        for (int64_t i = 0; i < n; i++) sum[i] += f[i];
    else
        for (int64_t i = 0; i < n; i++) sum[i] = (first ? 0 : sum[i]) + bf16_to_float(h[i]);
}

void comm_store_row(char *to, dtype dt, const float *sum, int64_t n) {
    if (dt == DT_F32)
        memcpy(to, sum, (size_t)n * 4);
    else
        for (int64_t i = 0; i < n; i++) ((bf16 *)to)[i] = bf16_from_float(sum[i]);
}

// ---- exchanges

bool comm_direct(const comm *c) { return c->dev->ops->host_memory || c->linked; }

exchange exchange_make(comm *c, const group *g, comm_kind kind, MPI_Request *request) {
    return (exchange){c, g, request, 0, kind};
}

err *exchange_begin(exchange *x) {
    x->count = 0;
    return x->g->link ? link_begin(x->c) : NULL;
}

err *exchange_post(exchange *x, bool send, int peer, void *buf, int64_t n, dtype dt) {
    err *e = NULL;
    MPI_Request *r = &x->request[x->count++];
    if (send) comm_count(x->c, x->kind, 1, (uint64_t)n * dtype_size(dt));
    if (x->c->listener) return NULL;
    if (x->g->link) return link_post(x->c, x->g->link, send, peer, buf, n, dt);
    if (send)
        MPI_TRY(MPI_Isend(buf, (int)n, comm_mpi_type(dt), peer, 1, x->g->comm, r), "MPI_Isend");
    else
        MPI_TRY(MPI_Irecv(buf, (int)n, comm_mpi_type(dt), peer, 1, x->g->comm, r), "MPI_Irecv");
done:
    return e;
}

err *exchange_posted(exchange *x) { return x->g->link ? link_end(x->c, x->g->link) : NULL; }

err *exchange_end(exchange *x, const char *what) {
    return x->g->link ? link_end(x->c, x->g->link) : comm_wait(x->c, x->request, x->count, what);
}

// ---- sums

static int64_t cut(int64_t n, int parts, int i) { return n * i / parts; }
static int64_t aligned(int64_t n) { return (n + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN; }

// The parts that have come in, every `aligned(n)` elements, and this rank's own at `own`, added in rank
// order.
static void add_parts(comm *c, const group *g, dtype dt, char *own, int64_t n, char *in) {
    size_t row = (size_t)aligned(n) * dtype_size(dt);
    float *sum = (float *)c->scratch;
    if (c->linked) {
        c->dev->ops->sum_rows(c->dev, &(row_sum){.dt = dt,
                                                 .out_dt = dt,
                                                 .count = g->size,
                                                 .ld = aligned(n),
                                                 .n = n,
                                                 .rows = in,
                                                 .own = own,
                                                 .own_row = g->rank,
                                                 .out = own});
        return;
    }
    for (int r = 0; r < g->size; r++)
        comm_add_row(sum, r == g->rank ? own : in + (size_t)r * row, dt, n, r == 0);
    comm_store_row(own, dt, sum, n);
}

// Sum of one segment where it can be exchanged: everyone sends everyone its part of the elements, each forms
// the sum of its own part in rank order and sends it round. 2 (size-1) messages a rank, 2 n (size-1)/size
// elements.
static err *sum_segment(exchange *x, dtype dt, char *buf, int64_t n, char *in) {
    err *e = NULL;
    const group *g = x->g;
    size_t w = dtype_size(dt);
    int me = g->rank;
    int64_t lo = cut(n, g->size, me), mine = cut(n, g->size, me + 1) - lo;
    TRY(exchange_begin(x));
    for (int r = 0; r < g->size; r++) {
        if (r == me) continue;
        int64_t at = cut(n, g->size, r), count = cut(n, g->size, r + 1) - at;
        TRY(exchange_post(x, false, r, in + (size_t)r * (size_t)aligned(mine) * w, mine, dt));
        TRY(exchange_post(x, true, r, buf + (size_t)at * w, count, dt));
    }
    TRY(exchange_end(x, "a sum over ranks"));
    if (!x->c->listener) add_parts(x->c, g, dt, buf + (size_t)lo * w, mine, in);
    TRY(exchange_begin(x));
    for (int r = 0; r < g->size; r++) {
        if (r == me) continue;
        int64_t at = cut(n, g->size, r), count = cut(n, g->size, r + 1) - at;
        TRY(exchange_post(x, false, r, buf + (size_t)at * w, count, dt));
        TRY(exchange_post(x, true, r, buf + (size_t)lo * w, mine, dt));
    }
    TRY(exchange_end(x, "a sum over ranks"));
done:
    return e;
}

err *comm_sum(comm *c, const group *g, dtype dt, void *buf, int64_t n) {
    if (g->size <= 1 || n == 0) return NULL;
    err *e = NULL;
    exchange x = exchange_make(c, g, g->sum, c->request);
    size_t w = dtype_size(dt);
    char *in = c->linked ? c->sums : c->scratch + (size_t)COMM_SEGMENT * 4;
    char *staging = c->scratch + (size_t)COMM_SEGMENT * 8;
    const ops *k = c->dev->ops;
    bool direct = comm_direct(c);
    traffic before = c->sent[g->sum];
    // The parts of a segment differ by at most one element: leave room for size of the longest, aligned.
    int64_t most = c->segment - (int64_t)ROW_ALIGN * g->size;
    for (int64_t at = 0; at < n; at += most) {
        int64_t count = n - at < most ? n - at : most;
        char *seg = (char *)buf + (size_t)at * w;
        if (!direct) k->download(c->dev, staging, seg, (size_t)count * w);
        TRY(sum_segment(&x, dt, direct ? seg : staging, count, in));
        // The staging memory is next written by a download, which comes behind this.
        if (!direct) k->store(c->dev, seg, staging, (size_t)count * w);
    }
    comm_tell_together(c, g, g->sum, before);
done:
    return e;
}

// ---- small collectives

// Counted as a message to every other rank, whatever way the library finds.
static err *gather_bytes(comm *c, const group *g, const void *mine, void *all, size_t bytes,
                         const char *what) {
    err *e = NULL;
    MPI_Request r;
    comm_kind k = gather_kind(g);
    traffic before = c->sent[k];
    uint64_t others = (uint64_t)g->size - 1;
    if (bytes > INT_MAX) FAIL(ERR_RUNTIME, "%s: %zu bytes in one message", what, bytes);
    comm_count(c, k, others, others * bytes);
    comm_tell_together(c, g, k, before);
    if (c->listener) return NULL;
    MPI_TRY(MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, g->comm, &r), what);
    TRY(wait_one(c, &r, what));
done:
    return e;
}

err *comm_gather(comm *c, const group *g, const float *in, float *out, int64_t n) {
    const ops *k = c->dev->ops;
    size_t bytes = (size_t)n * sizeof(float);
    if (g->size == 1) {
        k->copy(c->dev, out, in, bytes);
        return NULL;
    }
    if (k->host_memory || c->listener) return gather_bytes(c, g, in, out, bytes, "a gather over ranks");
    if (g->link) {
        comm_count(c, gather_kind(g), (uint64_t)g->size - 1, ((uint64_t)g->size - 1) * bytes);
        return link_gather(c, g->link, in, out, n, DT_F32);
    }
    if (bytes * ((size_t)g->size + 1) > comm_scratch_bytes())
        return err_new(ERR_RUNTIME, "gather of %zu bytes from %d ranks is more than the staging buffer",
                       bytes, g->size);
    char *all = c->scratch + bytes;
    k->download(c->dev, c->scratch, in, bytes);
    err *e = gather_bytes(c, g, c->scratch, all, bytes, "a gather over ranks");
    if (!e) k->upload(c->dev, out, all, bytes * (size_t)g->size);
    return e;
}

err *comm_collect(comm *c, const void *mine, void *all, size_t bytes) {
    for (int r = 0; c->listener && r < c->world.size; r++) // as if all were like this one
        memcpy((char *)all + (size_t)r * bytes, mine, bytes);
    return gather_bytes(c, &c->world, mine, all, bytes, "a collection over all ranks");
}

err *comm_broadcast(comm *c, const group *g, void *data, size_t bytes, int root) {
    if (g->size <= 1) return NULL;
    err *e = NULL;
    MPI_Request r;
    for (size_t at = 0; at < bytes; at += INT_MAX) {
        size_t n = bytes - at < INT_MAX ? bytes - at : INT_MAX;
        uint64_t others = g->rank == root ? (uint64_t)g->size - 1 : 0;
        comm_count(c, COMM_CONTROL, others, others * n);
        if (c->listener) continue;
        MPI_TRY(MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, root, g->comm, &r), "MPI_Ibcast");
        TRY(wait_one(c, &r, "a broadcast"));
    }
done:
    return e;
}

err *comm_sum_world(comm *c, double *values, int n) {
    err *e = NULL;
    size_t bytes = (size_t)n * sizeof(double);
    double *all = calloc((size_t)c->world.size, bytes);
    if (!all) return err_new(ERR_SYSTEM, "out of memory for a sum over all ranks");
    TRY(comm_collect(c, values, all, bytes));
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < c->world.size; r++) sum += all[r * n + i];
        values[i] = sum;
    }
done:
    free(all);
    return e;
}

err *comm_barrier(comm *c) {
    double zero = 0;
    return comm_sum_world(c, &zero, 1);
}

typedef struct verdict {
    int code;
    char host[64], text[960];
} verdict;

err *comm_agree(comm *c, err *mine) {
    err *e = NULL;
    verdict v = {.code = (int)err_get_code(mine)};
    verdict *all = calloc((size_t)c->world.size, sizeof *all);
    if (!all) return err_first(mine, err_new(ERR_SYSTEM, "out of memory for the ranks' verdicts"));
    snprintf(v.host, sizeof v.host, "%s", c->host);
    snprintf(v.text, sizeof v.text, "%s", err_text(mine));
    TRY(comm_collect(c, &v, all, sizeof v));
    for (int r = 0; r < c->world.size && !e; r++) {
        if (all[r].code == ERR_OK) continue;
        e = err_new((err_code)all[r].code, "%s", all[r].text);
        if (c->world.size > 1) e = err_wrap(e, "rank %d (host %s)", r, all[r].host);
        err_share(e);
    }
    err_free(mine);
    mine = NULL;
done:
    free(all);
    return err_first(mine, e); // where the ranks cannot be asked, what this one knows counts
}
