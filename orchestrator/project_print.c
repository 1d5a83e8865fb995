// A projection as text and as JSON.
#include <math.h>
#include <stdlib.h>

#include "log.h"
#include "project.h"
#include "timeline.h"

// ---- text

static void print_traffic(FILE *out, const projection *p) {
    const mesh *m = &p->t[0].m;
    char most[32], all[32];
    for (int k = 0; k < COMM_KINDS; k++) {
        const trace *top = &p->t[0];
        double bytes = 0, messages = 0;
        for (int i = 0; i < p->sim.ranks; i++) {
            const traffic *s = &p->t[i].sent[k];
            bytes += (double)s->bytes;
            messages += (double)s->messages;
            if (s->bytes > top->sent[k].bytes) top = &p->t[i];
        }
        if (messages == 0) continue;
        int alike = m->dp * (m->tp / p->tensors);
        double copies = alike;
        format_bytes(most, (double)top->sent[k].bytes);
        format_bytes(all, bytes * copies);
        fprintf(out, "messages  %-14s stage %d tensor %d sends most: %llu, %s; all ranks: %.0f, %s\n",
                comm_kind_name((comm_kind)k), top->m.p, top->m.t, (unsigned long long)top->sent[k].messages,
                most, messages * copies, all);
    }
}

static void print_shares(FILE *out, const projection *p) {
    double kinds[OP_KINDS] = {0}, together = 0, waiting = 0, total = 0;
    for (int i = 0; i < p->sim.ranks; i++) {
        for (int k = 0; k < OP_KINDS; k++) kinds[k] += p->t[i].seconds[k];
        together += p->sim.rank[i].together;
        waiting += p->sim.rank[i].waiting + p->sim.step - p->sim.rank[i].total;
        total += p->sim.step;
    }
    fprintf(out, "time      of all ranks:");
    for (int k = 0; k < OP_KINDS; k++)
        fprintf(out, " %s %.1f %%,", op_kind_name((op_kind)k), 100 * kinds[k] / total);
    fprintf(out, " collectives %.1f %%, waiting %.1f %%\n", 100 * together / total, 100 * waiting / total);
}

void projection_print(FILE *out, const projection *p) {
    char fullest[32], memory[32];
    print_traffic(out, p);
    fprintf(out,
            "work      a token: %.4g GFLOP by 6N + 12 L h s (all pairs of tokens), %.4g by 6N + 6 L h s "
            "(causal), "
            "%.4g done by the ranks\n",
            p->flop_full / 1e9, p->flop_causal / 1e9, p->flop_done / 1e9);
    fprintf(out, "estimate  on %d x %s (%s): a step of %.4g s, %.4g tokens/s; %.4g days for %lld steps\n",
            p->world, p->machine.name, p->c->train.precision == DT_F32 ? "fp32" : "bf16", p->sim.step,
            p->tokens_per_s, p->days, (long long)p->c->train.steps);
    fprintf(out,
            "          MFU %.1f %% (all pairs), %.1f %% (causal); idle in the pipeline %.1f %%, by "
            "(p-1)/(mv+p-1) %.1f "
            "%%; data collectives %.3g s\n",
            100 * p->mfu_full, 100 * p->mfu_causal, 100 * p->sim.idle, 100 * p->formula_idle, p->sim.data);
    print_shares(out, p);
    format_bytes(fullest, p->fullest);
    format_bytes(memory, p->machine.memory);
    if (projection_fits(p))
        fprintf(out, "fits      a rank holds %s of the %s of %s\n", fullest, memory, p->machine.name);
    else
        fprintf(out, "warning   a rank holds %s, more than the %s of %s: this will not fit\n", fullest,
                memory, p->machine.name);
}

void projection_timeline(FILE *out, const projection *p) {
    timeline_row *rows = calloc((size_t)p->stages, sizeof *rows);
    if (!rows) return;
    for (int s = 0; s < p->stages; s++)
        rows[s] = (timeline_row){s, p->sim.action[s * p->tensors], p->t[s * p->tensors].actions};
    timeline_print(out, rows, p->stages, 120);
    for (int s = 0; s < p->stages; s++)
        fprintf(out, "stage %3d idle %.1f %%\n", s, 100 * p->sim.rank[s * p->tensors].idle);
    fprintf(out, "idle share %.1f %%, by (p-1)/(mv+p-1) %.1f %%\n", 100 * p->sim.idle, 100 * p->formula_idle);
    free(rows);
}

// ---- JSON

static json_t *traffic_json(const trace *t) {
    json_t *doc = json_object();
    for (int k = 0; k < COMM_KINDS; k++)
        if (t->sent[k].messages)
            json_object_set_new(doc, comm_kind_name((comm_kind)k),
                                json_pack("{s:I, s:I}", "messages", (json_int_t)t->sent[k].messages, "bytes",
                                          (json_int_t)t->sent[k].bytes));
    return doc;
}

static json_t *memory_json(const trace *t) {
    json_t *doc = json_object();
    for (int k = 0; k < MEM_CLASSES; k++)
        json_object_set_new(doc, mem_class_name((mem_class)k), json_integer((json_int_t)t->bytes[k]));
    json_object_set_new(doc, "communication", json_integer((json_int_t)t->host));
    return doc;
}

static json_t *place_json(const projection *p, int i) {
    const trace *t = &p->t[i];
    const rank_time *r = &p->sim.rank[i];
    double flop = 0;
    for (int k = 0; k < OP_KINDS; k++) flop += t->cost[k].flop;
    return json_pack("{s:i, s:i, s:I, s:o, s:o, s:f, s:f, s:f, s:f, s:f}", "stage", t->m.p, "tensor", t->m.t,
                     "parameters", (json_int_t)t->parameters, "bytes", memory_json(t), "sent",
                     traffic_json(t), "flop", flop, "compute_seconds", r->compute, "collective_seconds",
                     r->together, "waiting_seconds", r->waiting, "idle", r->idle);
}

static json_t *layers_json(const projection *p) {
    const blueprint *b = p->b;
    json_t *list = json_array();
    for (int i = 0; i < b->plan->layers; i++)
        json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:i}", "layer", i, "donor", b->plan->donor[i],
                                              "stage", layout_rank(b->stages, i), "virtual_stage",
                                              layout_stage(b->stages, i)));
    return list;
}

json_t *projection_json(const projection *p) {
    const mesh *m = &p->t[0].m;
    json_t *ranks = json_array();
    for (int i = 0; i < p->sim.ranks; i++) json_array_append_new(ranks, place_json(p, i));
    json_t *mesh = json_pack("{s:i, s:i, s:i, s:i}", "ranks", p->world, "data", m->dp, "pipeline", m->pp,
                             "tensor", m->tp);
    return json_pack("{s:s, s:o, s:o, s:o, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "machine",
                     p->machine.name, "mesh", mesh, "layers", layers_json(p), "places", ranks, "step_tokens",
                     (json_int_t)p->step_tokens, "flop_per_token_all_pairs", p->flop_full,
                     "flop_per_token_causal", p->flop_causal, "flop_per_token_done", p->flop_done,
                     "step_seconds", p->sim.step, "tokens_per_second", p->tokens_per_s, "idle", p->sim.idle,
                     "mfu_all_pairs", p->mfu_full, "mfu_causal", p->mfu_causal, "days", p->days, "fits",
                     projection_fits(p));
}
