#include "lr.h"

#include <math.h>

double learning_rate(const config *c, int64_t step) {
    double lr = c->optimizer.lr, low = c->schedule.min_lr;
    int64_t warmup = c->schedule.warmup, steps = c->train.steps, decay = c->schedule.decay;
    if (step <= warmup) return lr * (double)step / (double)warmup;
    if (c->schedule.kind == SCHED_CONSTANT) return lr;
    int64_t from = c->schedule.kind == SCHED_WSD ? steps - decay : warmup;
    if (step <= from || steps == from) return lr;
    double part = (double)(step - from) / (double)(steps - from);
    if (part > 1) part = 1;
    double share = c->schedule.kind == SCHED_COSINE ? (1 + cos(3.14159265358979323846 * part)) / 2 : 1 - part;
    return low + (lr - low) * share;
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
