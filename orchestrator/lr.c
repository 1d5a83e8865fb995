#include "lr.h"

#include <math.h>

schedule_phase schedule_part(const config *c, int i, int64_t *end) {
    schedule_phase p = {.kind = c->schedule.kind,
                        .lr = c->optimizer.lr,
                        .min_lr = c->schedule.min_lr,
                        .warmup = c->schedule.warmup,
                        .decay = c->schedule.decay,
                        .steps = c->schedule.steps};
    if (i > 0) p = c->schedule.phases[i - 1];
    *end = i < c->schedule.n_phases ? c->schedule.phases[i].at : c->train.steps;
    if (p.steps == 0) p.steps = *end - p.at;
    return p;
}

// Rate of a phase that began at the rate `from`.
static double phase_rate(const schedule_phase *p, double from, int64_t step) {
    int64_t k = step - p->at;
    if (k <= p->warmup) return p->warmup ? from + (p->lr - from) * (double)k / (double)p->warmup : from;
    if (p->kind == SCHED_CONSTANT) return p->lr;
    int64_t flat = p->kind == SCHED_WSD ? p->steps - p->decay : p->warmup;
    if (k <= flat || p->steps == flat) return p->lr;
    double part = (double)(k - flat) / (double)(p->steps - flat);
    if (part > 1) part = 1;
    double share = p->kind == SCHED_COSINE ? (1 + cos(3.14159265358979323846 * part)) / 2 : 1 - part;
    return p->min_lr + (p->lr - p->min_lr) * share;
}

double learning_rate(const config *c, int64_t step) {
    double rate = 0;
    for (int i = 0; i <= c->schedule.n_phases; i++) {
        int64_t end;
        schedule_phase p = schedule_part(c, i, &end);
        rate = phase_rate(&p, rate, step < end || i == c->schedule.n_phases ? step : end);
        if (step <= end) break;
    }
    return rate;
}

void learning_rate_print(FILE *out, const config *c) {
    static const char *const kind[] = {"wsd", "cosine", "linear", "constant"};
    for (int i = 0; i <= c->schedule.n_phases; i++) {
        int64_t end;
        schedule_phase p = schedule_part(c, i, &end);
        fprintf(out, "rate      steps %lld-%lld: ", (long long)p.at + 1, (long long)end);
        if (p.warmup)
            fprintf(out, "from %.3g to %.3g over %lld, ", learning_rate(c, p.at), p.lr, (long long)p.warmup);
        fprintf(out, "%s %.3g", kind[p.kind], p.lr);
        if (p.decay) fprintf(out, ", falling over the last %lld", (long long)p.decay);
        if (p.at + p.steps != end) fprintf(out, " of %lld", (long long)p.steps);
        fprintf(out, "; %.3g at the end\n", learning_rate(c, end));
    }
}

static bool at_seam(const depth_plan *p, int layer, int64_t width) {
    for (int i = 0; i < p->seams; i++)
        if (layer >= p->seam[i] - width && layer < p->seam[i] + width) return true;
    return false;
}

static double group_scale(const config *c, const depth_plan *plan, const tensor_row *r) {
    if (r->role == R_EMBED) return c->lr_scale.embedding;
    if (r->layer < 0) return c->lr_scale.head;
    if (at_seam(plan, r->layer, c->lr_scale.seam_width)) return c->lr_scale.seam;
    return plan->seams && r->layer >= plan->seam[0] ? c->lr_scale.half_b : c->lr_scale.half_a;
}

double learning_rate_scale(const config *c, const depth_plan *plan, const tensor_row *r) {
    if (r->layer >= 0 && plan->init[r->layer] != LAYER_KEPT) return c->lr_scale.fresh;
    return c->lr_scale.old * group_scale(c, plan, r);
}
