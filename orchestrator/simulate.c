#include "simulate.h"

#include <math.h>
#include <stdlib.h>

typedef struct channel { // messages of one sender and tag to one rank, in order
    int from, tag;
    int sent, expected, room;
    double *there; // [sent] when they arrive
} channel;

typedef struct pending { // a transfer of a rank by its number
    bool receive;
    int channel, index; // receive: which message
    double done;        // send: when the buffer is free
} pending;

typedef struct meeting { // a group's collectives, one after the other
    int size, arrived;
    double latest, longest; // of those under way
    int64_t held;           // ended so far
    double end[2];          // of the last two, by parity: nobody is further ahead
} meeting;

typedef struct walker { // a rank on its way through its trace
    const trace *t;
    int at;
    double now, link_free;
    double *done; // [events+1] time after as many events
    channel *channel;
    int channels;
    pending *pending;
    int64_t attended[COMM_KINDS]; // meetings, by the first kind of the group
    bool arrived;                 // at the meeting under way
    rank_time *time;
} walker;

typedef struct world_model {
    const machine *m;
    int stages, tensors;
    int64_t kv_heads;
    walker *w;
    meeting *tensor, *kv, *tied, *all; // [stages], [stages*tensors], [tensors], [1]
} world_model;

// ---- messages

static int find_channel(walker *w, int from, int tag) {
    for (int i = 0; i < w->channels; i++)
        if (w->channel[i].from == from && w->channel[i].tag == tag) return i;
    channel *more = realloc(w->channel, (size_t)(w->channels + 1) * sizeof *more);
    if (!more) return -1;
    w->channel = more;
    w->channel[w->channels] = (channel){.from = from, .tag = tag};
    return w->channels++;
}

static err *deliver(walker *to, int from, int tag, double when) {
    int i = find_channel(to, from, tag);
    channel *c = i < 0 ? NULL : &to->channel[i];
    if (c && c->sent == c->room) {
        int room = c->room ? 2 * c->room : 64;
        double *more = realloc(c->there, (size_t)room * sizeof *more);
        if (!more) return err_new(ERR_SYSTEM, "out of memory for the messages of a plan");
        c->there = more;
        c->room = room;
    }
    if (!c) return err_new(ERR_SYSTEM, "out of memory for the messages of a plan");
    c->there[c->sent++] = when;
    return NULL;
}

// The walker of a rank of the world; data ranks are alike.
static walker *walker_of(world_model *wm, int rank) {
    mesh m = wm->w[0].t->m, at;
    err *e = mesh_make(m.world, rank, m.pp, m.tp, m.order, &at);
    err_free(e);
    return e ? NULL : &wm->w[at.p * wm->tensors + (wm->tensors > 1 ? at.t : 0)];
}

static err *send(world_model *wm, walker *w, const trace_event *e) {
    double next, begin = fmax(w->now, w->link_free);
    double travel = machine_message(wm->m, w->t->m.rank, e->peer, e->amount, &next);
    walker *to = walker_of(wm, e->peer);
    w->link_free = begin + next;
    w->pending[e->id] = (pending){.done = begin + next};
    if (!to) return err_new(ERR_RUNTIME, "a plan in which rank %d sends to rank %d", w->t->m.rank, e->peer);
    return deliver(to, (int)(w - wm->w), e->tag, begin + travel);
}

static err *receive(world_model *wm, walker *w, const trace_event *e) {
    const walker *from = walker_of(wm, e->peer);
    int i = from ? find_channel(w, (int)(from - wm->w), e->tag) : -1;
    if (i < 0) return err_new(ERR_SYSTEM, "out of memory for the messages of a plan");
    w->pending[e->id] = (pending){.receive = true, .channel = i, .index = w->channel[i].expected++};
    return NULL;
}

// False: what is waited for has not been sent yet.
static bool finish(walker *w, const trace_event *e) {
    const pending *p = &w->pending[e->id];
    const channel *c = p->receive ? &w->channel[p->channel] : NULL;
    if (c && p->index >= c->sent) return false;
    double then = c ? c->there[p->index] : p->done;
    if (then > w->now) w->now = then;
    return true;
}

// ---- collectives

static comm_kind first_kind(comm_kind k) { return k < COMM_FORWARD ? (comm_kind)(k / 3 * 3) : k; }

static meeting *meeting_of(world_model *wm, const walker *w, comm_kind group) {
    const mesh *m = &w->t->m;
    int copies = m->tp > wm->kv_heads ? m->tp / (int)wm->kv_heads : 1, t = wm->tensors > 1 ? m->t : 0;
    switch (group) {
    case COMM_TENSOR_SUM: return &wm->tensor[m->p];
    case COMM_KV_SUM: return &wm->kv[m->p * wm->tensors + (wm->tensors > 1 ? t / copies : 0)];
    case COMM_TIED_SUM: return &wm->tied[t];
    case COMM_CONTROL: return wm->all;
    default: return NULL; // data ranks are alike: they arrive together
    }
}

static void hold(meeting *g, double end) {
    g->end[g->held++ % 2] = end;
    g->arrived = 0;
    g->latest = g->longest = 0;
}

// False: not all are there yet.
static bool meet(world_model *wm, walker *w, const trace_event *e) {
    comm_kind group = first_kind(e->kind);
    meeting *g = meeting_of(wm, w, group);
    double takes = machine_together(wm->m, &w->t->m, wm->kv_heads, e->kind, e->amount);
    double end = w->now + takes;
    if (g && !w->arrived) {
        g->arrived++;
        g->latest = fmax(g->latest, w->now);
        g->longest = fmax(g->longest, takes);
        w->arrived = true;
        if (g->arrived == g->size) hold(g, g->latest + g->longest);
    }
    if (g && g->held == w->attended[group]) return false;
    if (g) end = g->end[w->attended[group]++ % 2];
    w->arrived = false;
    w->time->together += takes;
    if (group == COMM_TENSOR_SUM || group == COMM_KV_SUM) w->time->tensor += takes;
    w->now = end;
    return true;
}

// ---- walking

// Goes on until the end or until something is missing; *moved says whether it got anywhere.
static err *walk(world_model *wm, walker *w, bool *moved) {
    for (; w->at < w->t->events; *moved = true) {
        const trace_event *e = &w->t->event[w->at];
        err *bad = NULL;
        bool done = true;
        switch (e->what) {
        case TRACE_BUSY: w->now += e->amount, w->time->compute += e->amount; break;
        case TRACE_SEND: bad = send(wm, w, e); break;
        case TRACE_RECEIVE: bad = receive(wm, w, e); break;
        case TRACE_WAIT: done = finish(w, e); break;
        case TRACE_TOGETHER: done = meet(wm, w, e); break;
        }
        if (bad || !done) return bad;
        w->done[++w->at] = w->now;
    }
    return NULL;
}

static err *walk_all(world_model *wm, int n) {
    err *e = NULL;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int i = 0; i < n; i++) TRY(walk(wm, &wm->w[i], &moved));
    }
    for (int i = 0; i < n; i++)
        if (wm->w[i].at < wm->w[i].t->events)
            FAIL(ERR_RUNTIME, "a plan in which rank %d waits for what nobody sends, after %d of %d events",
                 wm->w[i].t->m.rank, wm->w[i].at, wm->w[i].t->events);
done:
    return e;
}

// ---- set-up

static void size_meetings(world_model *wm, const mesh *m) {
    int tensors = wm->tensors, copies = m->tp > wm->kv_heads ? m->tp / (int)wm->kv_heads : 1;
    for (int p = 0; p < wm->stages; p++) wm->tensor[p].size = tensors;
    for (int i = 0; i < wm->stages * tensors; i++) wm->kv[i].size = tensors > 1 ? copies : 1;
    for (int t = 0; t < tensors; t++) wm->tied[t].size = 2;
    wm->all->size = wm->stages * tensors;
}

static uint32_t most_transfers(const trace *t) {
    uint32_t most = 0;
    for (int i = 0; i < t->events; i++)
        if (t->event[i].id > most) most = t->event[i].id;
    return most;
}

static err *prepare(world_model *wm, const trace *t, simulation *out) {
    size_t n = (size_t)out->ranks;
    wm->w = calloc(n, sizeof *wm->w);
    wm->tensor = calloc((size_t)wm->stages, sizeof(meeting));
    wm->kv = calloc(n, sizeof(meeting));
    wm->tied = calloc((size_t)wm->tensors, sizeof(meeting));
    wm->all = calloc(1, sizeof(meeting));
    out->rank = calloc(n, sizeof *out->rank);
    out->action = calloc(n, sizeof *out->action);
    if (!wm->w || !wm->tensor || !wm->kv || !wm->tied || !wm->all || !out->rank || !out->action)
        return err_new(ERR_SYSTEM, "out of memory for a simulated step");
    size_meetings(wm, &t[0].m);
    for (size_t i = 0; i < n; i++) {
        wm->w[i] = (walker){.t = &t[i], .time = &out->rank[i]};
        wm->w[i].done = calloc((size_t)t[i].events + 1, sizeof(double));
        wm->w[i].pending = calloc((size_t)most_transfers(&t[i]) + 1, sizeof(pending));
        out->action[i] = calloc((size_t)t[i].actions + 1, sizeof(trace_action));
        if (!wm->w[i].done || !wm->w[i].pending || !out->action[i])
            return err_new(ERR_SYSTEM, "out of memory for a simulated step of %d events", t[i].events);
    }
    return NULL;
}

static void clear(world_model *wm, int n) {
    for (int i = 0; wm->w && i < n; i++) {
        for (int c = 0; c < wm->w[i].channels; c++) free(wm->w[i].channel[c].there);
        free(wm->w[i].channel);
        free(wm->w[i].done);
        free(wm->w[i].pending);
    }
    free(wm->w);
    free(wm->tensor);
    free(wm->kv);
    free(wm->tied);
    free(wm->all);
}

// ---- results

// Seconds of an event that are not waiting.
static double busy(const world_model *wm, const walker *w, const trace_event *e) {
    if (e->what == TRACE_BUSY) return e->amount;
    if (e->what != TRACE_TOGETHER) return 0;
    return machine_together(wm->m, &w->t->m, wm->kv_heads, e->kind, e->amount);
}

static void take_actions(const walker *w, trace_action *out) {
    for (int i = 0; out && i < w->t->actions; i++) {
        const trace_action *a = &w->t->action[i];
        out[i] = *a;
        out[i].start = w->done[(int)a->start];
        out[i].end = w->done[(int)a->end];
    }
}

static void find_pipeline(const simulation *s, const trace *t, double *from, double *to) {
    *from = INFINITY;
    *to = 0;
    for (int r = 0; r < s->ranks; r++) {
        const trace_action *a = s->action[r];
        for (int i = 0; a && i < t[r].actions; i++) {
            *from = fmin(*from, a[i].start);
            *to = fmax(*to, a[i].end);
        }
    }
}

static void summarize(const world_model *wm, const trace *t, simulation *out) {
    double from, to;
    for (int r = 0; r < out->ranks; r++) take_actions(&wm->w[r], out->action[r]);
    find_pipeline(out, t, &from, &to);
    out->pipeline = to - from;
    for (int r = 0; r < out->ranks; r++) {
        const walker *w = &wm->w[r];
        double inside = 0, data = 0;
        for (int i = 0; i < t[r].events; i++) {
            double b = busy(wm, w, &t[r].event[i]);
            if (w->done[i] >= from && w->done[i + 1] <= to) inside += b;
            if (t[r].event[i].what == TRACE_TOGETHER && first_kind(t[r].event[i].kind) == COMM_DATA_SUM)
                data += b;
        }
        rank_time *time = w->time;
        time->total = w->now;
        time->waiting = w->now - time->compute - time->together;
        time->idle = 1 - inside / (to - from);
        out->idle += time->idle / out->ranks;
        out->step = fmax(out->step, w->now);
        out->data = fmax(out->data, data);
    }
}

err *simulate(const trace *t, int stages, int tensors, int64_t kv_heads, const machine *m, simulation *out) {
    err *e = NULL;
    world_model wm = {.m = m, .stages = stages, .tensors = tensors, .kv_heads = kv_heads};
    *out = (simulation){.ranks = stages * tensors};
    TRY(prepare(&wm, t, out));
    TRY(walk_all(&wm, out->ranks));
    summarize(&wm, t, out);
done:
    clear(&wm, out->ranks);
    if (e) simulation_free(out);
    return e;
}

void simulation_free(simulation *s) {
    for (int i = 0; s->action && i < s->ranks; i++) free(s->action[i]);
    free(s->action);
    free(s->rank);
    *s = (simulation){0};
}
