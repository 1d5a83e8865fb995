#include "project.h"

#include <math.h>
#include <stdlib.h>

#include "measures.h"
#include "plan.h"

static err *trace_places(projection *p) {
    err *e = NULL;
    const blueprint *b = p->b;
    mesh m;
    TRY(mesh_make(p->world, 0, (int)p->c->mesh.pipeline, (int)p->c->mesh.tensor, p->c->mesh.order, &m));
    p->stages = m.pp;
    p->t = calloc((size_t)(p->stages * p->tensors), sizeof *p->t);
    if (!p->t) FAIL(ERR_SYSTEM, "out of memory for a plan of %d ranks", p->stages * p->tensors);
    for (int i = 0; i < p->stages * p->tensors; i++) {
        mesh at = m;
        part_shape shape;
        at.p = i / p->tensors;
        at.t = i % p->tensors;
        at.rank = mesh_rank(&m, 0, at.p, at.t);
        TRY(plan_shape(p->c, &at, &shape));
        trace_input in = {b->spec,
                          b->plan,
                          b->stages,
                          b->table,
                          &at,
                          &shape,
                          p->c->train.global_batch,
                          machine_seconds,
                          &p->machine,
                          plan_linked(p->c, p->machine.name)};
        TRY(trace_step(&in, &p->t[i]));
    }
done:
    return e;
}

static double arena_bytes(const trace *t) {
    double sum = (double)t->links;
    for (int k = 0; k < MEM_HOST; k++) sum += (double)t->bytes[k];
    return sum;
}

static void take_work(projection *p) {
    const mesh *m = &p->t[0].m;
    token_flop token = token_flop_of(p->b->spec, p->c->data.seq_len);
    double flop = 0;
    p->flop_full = token.all_pairs;
    p->flop_causal = token.causal;
    for (int i = 0; i < p->sim.ranks; i++) {
        p->fullest = fmax(p->fullest, arena_bytes(&p->t[i]));
        for (int k = 0; k < OP_KINDS; k++) flop += p->t[i].cost[k].flop;
    }
    int alike = m->tp / p->tensors;
    p->flop_done = flop * m->dp * alike / (double)p->step_tokens;
}

static void take_speed(projection *p) {
    const mesh *m = &p->t[0].m;
    double peak = p->machine.peak[p->c->train.precision] * p->world;
    double actions = p->t[0].actions / 2.0; // forwards of a rank: micro-batches x virtual stages
    p->formula_idle = (m->pp - 1) / (actions + m->pp - 1);
    p->tokens_per_s = (double)p->step_tokens / p->sim.step;
    p->mfu_full = p->flop_full * p->tokens_per_s / peak;
    p->mfu_causal = p->flop_causal * p->tokens_per_s / peak;
    p->days = (double)p->c->train.steps * p->sim.step / 86400;
}

err *project(const config *c, const blueprint *b, int world, int tensors, const machine *m, projection *out) {
    err *e = NULL;
    *out = (projection){.c = c, .b = b, .machine = *m, .world = world, .tensors = tensors};
    out->step_tokens = c->train.global_batch * c->data.seq_len;
    TRY(trace_places(out));
    TRY(simulate(out->t, out->stages, tensors, b->spec->kv_heads, m, &out->sim));
    take_work(out);
    take_speed(out);
done:
    if (e) projection_free(out);
    return e;
}

void projection_free(projection *p) {
    for (int i = 0; p->t && i < p->stages * p->tensors; i++) trace_free(&p->t[i]);
    free(p->t);
    simulation_free(&p->sim);
    *p = (projection){0};
}

bool projection_fits(const projection *p) { return p->fullest <= p->machine.memory; }
