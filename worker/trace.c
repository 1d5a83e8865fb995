#include "trace.h"

#include <stdlib.h>
#include <string.h>

typedef struct recorder {
    cost_listener ops; // first: what the device tells comes as a pointer to it
    comm_listener comm;
    trace *t;
    trace_rate rate;
    const void *machine;
    bool on;     // the step has begun
    bool broken; // no memory for events
    bool apart;  // the next operation begins an event of its own
    int room;
} recorder;

static recorder *of_comm(comm_listener *l) {
    return (recorder *)(void *)((char *)l - offsetof(recorder, comm));
}

static trace_event *add(recorder *r, trace_event e) {
    trace *t = r->t;
    if (t->events == r->room) {
        int room = r->room ? 2 * r->room : 1024;
        trace_event *more = realloc(t->event, (size_t)room * sizeof *more);
        if (!more) {
            r->broken = true;
            return NULL;
        }
        t->event = more;
        r->room = room;
    }
    t->event[t->events] = e;
    return &t->event[t->events++];
}

static void hear_op(cost_listener *self, const op_cost *c) {
    recorder *r = (recorder *)self;
    trace *t = r->t;
    if (!r->on || r->broken) return;
    double seconds = r->rate ? r->rate(r->machine, c) : 0;
    t->count[c->kind]++;
    t->cost[c->kind].flop += c->flop;
    t->cost[c->kind].full_flop += c->full_flop;
    t->cost[c->kind].bytes += c->bytes;
    t->seconds[c->kind] += seconds;
    if (!r->apart && t->events && t->event[t->events - 1].what == TRACE_BUSY)
        t->event[t->events - 1].amount += seconds;
    else
        add(r, (trace_event){.what = TRACE_BUSY, .amount = seconds});
    r->apart = false;
}

static void hear_comm(comm_listener *self, const comm_event *e) {
    static const trace_what what[] = {TRACE_SEND, TRACE_RECEIVE, TRACE_WAIT, TRACE_TOGETHER};
    recorder *r = of_comm(self);
    if (!r->on || r->broken) return;
    add(r, (trace_event){.what = what[e->act],
                         .kind = e->kind,
                         .peer = e->peer,
                         .tag = e->tag,
                         .id = (uint32_t)e->id,
                         .messages = (uint32_t)e->sent.messages,
                         .amount = (double)e->sent.bytes});
}

// The clock of a trace is its number of events. Who looks at it sees all before as past.
static double count_events(comm_listener *self) {
    recorder *r = of_comm(self);
    r->apart = true;
    return r->t->events;
}

static void take_memory(const part *p, bool linked, trace *t) {
    memcpy(t->bytes, p->mem.used, sizeof t->bytes);
    t->allocated = plan_device_allocated(p->dev);
    t->host = comm_scratch_bytes() + (linked ? 0 : reduce_scratch_bytes(&p->m, false));
    t->links = linked ? comm_link_scratch_bytes() + reduce_scratch_bytes(&p->m, true) : 0;
    for (int i = 0; i < p->weights; i++) t->parameters += p->weight[i].n;
}

static err *take_actions(const trainer *tr, trace *t) {
    t->actions = tr->actions;
    t->action = calloc((size_t)t->actions, sizeof *t->action);
    if (!t->action) return err_new(ERR_SYSTEM, "out of memory for a plan of %d actions", t->actions);
    for (int i = 0; i < t->actions; i++) {
        const action *a = &tr->p->schedule[i];
        t->action[i] = (trace_action){a->kind, a->micro, a->v, tr->times[i].start, tr->times[i].end};
    }
    return NULL;
}

// One step of a rank that is built: tokens are zeros, nothing reads what they lead to.
static err *run_step(const trace_input *in, trainer *tr, recorder *r) {
    static const step_options o = {.lr = 1, .clip_norm = 1};
    err *e = NULL;
    step_report report;
    size_t rows = (size_t)(in->global_batch / in->m->dp), columns = (size_t)in->shape->rows + 1;
    int32_t *tokens = calloc(rows * columns, sizeof *tokens);
    if (!tokens) FAIL(ERR_SYSTEM, "out of memory for %zu samples", rows);
    traffic before[COMM_KINDS];
    memcpy(before, tr->c->sent, sizeof before);
    r->on = true;
    e = train_step(tr, 1, 1, &o, tokens, 0, &report);
    r->on = false;
    for (int k = 0; k < COMM_KINDS; k++) {
        r->t->sent[k].messages = tr->c->sent[k].messages - before[k].messages;
        r->t->sent[k].bytes = tr->c->sent[k].bytes - before[k].bytes;
    }
    if (!e && r->broken) e = err_new(ERR_SYSTEM, "out of memory for a plan of %d events", r->t->events);
done:
    free(tokens);
    return e;
}

err *trace_step(const trace_input *in, trace *out) {
    err *e = NULL;
    device *dev = NULL;
    part *p = NULL;
    comm *c = NULL;
    trainer *tr = NULL;
    recorder r = {.ops = {hear_op},
                  .comm = {hear_comm, count_events},
                  .t = out,
                  .rate = in->rate,
                  .machine = in->machine};
    *out = (trace){.m = *in->m};
    TRY(plan_device_open(&r.ops, &dev));
    TRY(part_make(in->spec, in->plan, in->stages, in->table, in->m, in->shape, dev, &p));
    TRY(comm_open_plan(in->m, dev, in->spec->kv_heads, in->spec->tied, &r.comm, &c));
    if (in->linked) TRY(comm_link(c));
    TRY(trainer_open(p, c, in->global_batch, &tr));
    take_memory(p, in->linked, out);
    TRY(run_step(in, tr, &r));
    TRY(take_actions(tr, out));
done:
    trainer_close(tr);
    comm_close(c);
    part_free(p);
    if (dev) dev->ops->close(dev);
    if (e) trace_free(out);
    return e;
}

void trace_free(trace *t) {
    free(t->event);
    free(t->action);
    *t = (trace){0};
}
