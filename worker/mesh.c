// The grid of ranks, and which layers each pipeline stage holds.
#include "mesh.h"

#include <math.h>
#include <stdlib.h>

enum { AXIS_T, AXIS_D, AXIS_P };

// Axes of an order, innermost first.
static const int axes_of[][3] = {
    [MESH_TDP] = {AXIS_T, AXIS_D, AXIS_P}, [MESH_TPD] = {AXIS_T, AXIS_P, AXIS_D},
    [MESH_DTP] = {AXIS_D, AXIS_T, AXIS_P}, [MESH_DPT] = {AXIS_D, AXIS_P, AXIS_T},
    [MESH_PTD] = {AXIS_P, AXIS_T, AXIS_D}, [MESH_PDT] = {AXIS_P, AXIS_D, AXIS_T},
};

static int size_of(const mesh *m, int axis) {
    return axis == AXIS_T ? m->tp : axis == AXIS_D ? m->dp : m->pp;
}

err *mesh_make(int world, int rank, int pp, int tp, mesh_order order, mesh *out) {
    if (pp < 1 || tp < 1)
        return err_new(ERR_CONFIG, "mesh: pipeline %d x tensor %d, expected both at least 1", pp, tp);
    long long model = (long long)pp * tp;
    if (world < 1 || world % model != 0)
        return err_new(
            ERR_CONFIG,
            "mesh: %d ranks cannot be dealt out to pipeline %d x tensor %d: start a multiple of %lld ranks",
            world, pp, tp, model);
    if (rank < 0 || rank >= world) return err_new(ERR_RUNTIME, "mesh: rank %d of %d", rank, world);
    *out =
        (mesh){.world = world, .rank = rank, .pp = pp, .tp = tp, .dp = (int)(world / model), .order = order};
    int *place[] = {[AXIS_T] = &out->t, [AXIS_D] = &out->d, [AXIS_P] = &out->p};
    for (int i = 0; i < 3; i++) {
        int axis = axes_of[order][i];
        *place[axis] = rank % size_of(out, axis);
        rank /= size_of(out, axis);
    }
    return NULL;
}

int mesh_rank(const mesh *m, int d, int p, int t) {
    const int place[] = {[AXIS_T] = t, [AXIS_D] = d, [AXIS_P] = p};
    int rank = 0;
    for (int i = 2; i >= 0; i--) {
        int axis = axes_of[m->order][i];
        rank = rank * size_of(m, axis) + place[axis];
    }
    return rank;
}

// ---- layout

static layout *layout_new(const depth_plan *plan, const layout_shape *shape) {
    layout *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    *l = (layout){.stages = shape->pp * shape->interleave, .ranks = shape->pp, .layers = plan->layers};
    l->first = calloc((size_t)l->stages + 1, sizeof *l->first);
    if (l->first) return l;
    free(l);
    return NULL;
}

void layout_free(layout *l) {
    if (!l) return;
    free(l->first);
    free(l);
}

static bool is_seam(const depth_plan *plan, int layer) {
    for (int i = 0; i < plan->seams; i++)
        if (plan->seam[i] == layer) return true;
    return false;
}

static int boundaries_on_seams(const depth_plan *plan, const layout *l) {
    int n = 0;
    for (int i = 1; i < l->stages; i++) n += is_seam(plan, l->first[i]);
    return n;
}

static err *use_counts(const depth_plan *plan, const layout_shape *shape, layout *l) {
    long long sum = 0;
    for (int p = 0; p < l->stages; p++) {
        if (shape->counts[p] < 1)
            return err_new(ERR_CONFIG, "stage %d has %lld layers, expected at least 1", p,
                           (long long)shape->counts[p]);
        sum += shape->counts[p];
        if (sum > l->layers) break;
        l->first[p + 1] = (int)sum;
    }
    if (sum != l->layers)
        return err_new(ERR_CONFIG, "the layers per stage add up to %s%lld, the model has %d",
                       sum > l->layers ? "at least " : "", sum, l->layers);
    int most = plan->seams < l->stages - 1 ? plan->seams : l->stages - 1;
    int on = boundaries_on_seams(plan, l);
    if (shape->seam_inside || on == most) return NULL;
    return err_new(
        ERR_CONFIG,
        "%d of %d seams lie on stage boundaries, %d could (the seam of two halves is in front of layer "
        "%d): move the boundaries, leave the layout away, or allow it",
        on, plan->seams, most, plan->seam[0]);
}

// ---- the best layout, by dynamic programming over (stages so far, layers so far)

typedef struct best {
    double most, squares; // cost of the most expensive stage; sum of squares of all costs
    int from;             // layers in front of the last of these stages
} best;

typedef struct search {
    const depth_plan *plan;
    const layout_shape *shape;
    int stages, layers;
    int *run; // [layers+1] seams in front of or at a layer
    best *at; // [stages+1][layers+1]
} search;

static best *entry(const search *s, int stages, int layers) {
    return &s->at[stages * (s->layers + 1) + layers];
}

// May a stage hold layers from..to-1? With enough boundaries no seam may lie inside; with too few, every
// boundary has to be a seam.
static bool allowed(const search *s, int from, int to) {
    if (s->stages > s->plan->seams) return s->run[to - 1] == s->run[from];
    bool begins = from == 0 || is_seam(s->plan, from), ends = to == s->layers || is_seam(s->plan, to);
    return begins && ends;
}

static double cost(const search *s, int from, int to) {
    return to - from + (from == 0 ? s->shape->embed_cost : 0) + (to == s->layers ? s->shape->head_cost : 0);
}

static bool better(const best *a, const best *b) {
    double slack = 1e-9 * b->most;
    if (a->most < b->most - slack) return true;
    return a->most <= b->most + slack && a->squares <= b->squares * (1 + 1e-9);
}

static void extend(const search *s, int stages, int to) {
    best *found = entry(s, stages, to);
    for (int from = stages - 1; from < to; from++) {
        const best *before = entry(s, stages - 1, from);
        if (isinf(before->most) || !allowed(s, from, to)) continue;
        double c = cost(s, from, to);
        best b = {fmax(before->most, c), before->squares + c * c, from};
        if (better(&b, found)) *found = b; // the last of equals: larger stages first
    }
}

static err *choose_stages(const depth_plan *plan, const layout_shape *shape, layout *l) {
    err *e = NULL;
    search s = {.plan = plan, .shape = shape, .stages = l->stages, .layers = l->layers};
    size_t cells = (size_t)(s.stages + 1) * (size_t)(s.layers + 1);
    s.at = malloc(cells * sizeof *s.at);
    s.run = calloc((size_t)s.layers + 1, sizeof *s.run);
    if (!s.at || !s.run) FAIL(ERR_SYSTEM, "no memory for a layout of %d stages", s.stages);
    for (size_t i = 0; i < cells; i++) s.at[i] = (best){INFINITY, INFINITY, -1};
    for (int i = 1; i <= s.layers; i++) s.run[i] = s.run[i - 1] + is_seam(plan, i);
    *entry(&s, 0, 0) = (best){0, 0, -1};
    for (int n = 1; n <= s.stages; n++)
        for (int to = n; to <= s.layers; to++) extend(&s, n, to);
    l->first[s.stages] = s.layers;
    for (int n = s.stages; n > 0; n--) l->first[n - 1] = entry(&s, n, l->first[n])->from;
done:
    free(s.at);
    free(s.run);
    return e;
}

err *layout_make(const depth_plan *plan, const layout_shape *shape, layout **out) {
    long long stages = (long long)shape->pp * shape->interleave;
    if (shape->pp < 1 || shape->interleave < 1)
        return err_new(ERR_CONFIG, "%d pipeline stages, interleaved %d times, expected at least 1", shape->pp,
                       shape->interleave);
    if (shape->interleave > 1 && shape->pp == 1)
        return err_new(ERR_CONFIG,
                       "%d virtual stages on a pipeline of one rank: interleaving needs a pipeline",
                       shape->interleave);
    if (stages > plan->layers)
        return err_new(ERR_CONFIG,
                       "%lld pipeline stages for %d layers: every stage needs one, use at most %d", stages,
                       plan->layers, plan->layers);
    layout *l = layout_new(plan, shape);
    if (!l) return err_new(ERR_SYSTEM, "no memory for a layout of %lld stages", stages);
    err *e = shape->counts ? use_counts(plan, shape, l) : choose_stages(plan, shape, l);
    if (e) {
        layout_free(l);
        return e;
    }
    *out = l;
    return NULL;
}

int layout_stage(const layout *l, int layer) {
    int low = 0, high = l->stages - 1; // the last stage that starts at or before the layer
    while (low < high) {
        int mid = low + (high - low + 1) / 2;
        if (l->first[mid] <= layer)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

int layout_rank(const layout *l, int layer) { return layout_stage(l, layer) % l->ranks; }
