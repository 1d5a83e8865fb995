// The grid of ranks, and which layers each pipeline stage holds.
#include "mesh.h"

#include <stdlib.h>

err *mesh_make(int world, int rank, int pp, int tp, mesh *out) {
    if (pp < 1 || tp < 1)
        return err_new(ERR_CONFIG, "mesh: pipeline %d x tensor %d, expected both at least 1", pp, tp);
    long long model = (long long)pp * tp;
    if (world < 1 || world % model != 0)
        return err_new(
            ERR_CONFIG,
            "mesh: %d ranks cannot be dealt out to pipeline %d x tensor %d: start a multiple of %lld ranks",
            world, pp, tp, model);
    if (rank < 0 || rank >= world) return err_new(ERR_RUNTIME, "mesh: rank %d of %d", rank, world);
    *out = (mesh){.world = world, .rank = rank, .pp = pp, .tp = tp, .dp = (int)(world / model)};
    out->t = rank % tp;
    out->d = rank / tp % out->dp;
    out->p = rank / tp / out->dp;
    return NULL;
}

int mesh_rank(const mesh *m, int d, int p, int t) { return (p * m->dp + d) * m->tp + t; }

// ---- layout

static layout *layout_new(int stages, int layers) {
    layout *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->stages = stages;
    l->layers = layers;
    l->first = calloc((size_t)stages + 1, sizeof *l->first);
    if (l->first) return l;
    free(l);
    return NULL;
}

void layout_free(layout *l) {
    if (!l) return;
    free(l->first);
    free(l);
}

static err *use_counts(const int *counts, layout *l) {
    long long sum = 0;
    for (int p = 0; p < l->stages; p++) {
        if (counts[p] < 1)
            return err_new(ERR_CONFIG, "stage %d has %d layers, expected at least 1", p, counts[p]);
        sum += counts[p];
        if (sum > l->layers) break;
        l->first[p + 1] = (int)sum;
    }
    if (sum == l->layers) return NULL;
    return err_new(ERR_CONFIG, "the layers per stage add up to %s%lld, the model has %d",
                   sum > l->layers ? "at least " : "", sum, l->layers);
}

// Runs are the stretches between seams: run k is layers run_start(k) .. run_start(k+1)-1.
static int run_start(const depth_plan *plan, int k) {
    if (k == 0) return 0;
    return k > plan->seams ? plan->layers : plan->seam[k - 1];
}

static int run_length(const depth_plan *plan, int k) { return run_start(plan, k + 1) - run_start(plan, k); }

// At least as many stages as runs: every run is cut into one or more stages. Dealing each further stage to
// the run with the longest stages (the last of equals: the first stage holds the embedding and the most
// activations) keeps the largest stage as small as it can be.
static void deal_stages(const depth_plan *plan, int pp, int *parts) {
    int runs = plan->seams + 1;
    for (int k = 0; k < runs; k++) parts[k] = 1;
    for (int given = runs; given < pp; given++) {
        int best = -1;
        for (int k = 0; k < runs; k++) {
            if (parts[k] == run_length(plan, k)) continue;
            if (best < 0 ||
                (long long)run_length(plan, k) * parts[best] >= (long long)run_length(plan, best) * parts[k])
                best = k;
        }
        parts[best]++;
    }
}

// Within a run the first stages take what is left over: the last stage of all also has the head.
static void cut_runs(const depth_plan *plan, const int *parts, layout *l) {
    int stage = 0;
    for (int k = 0; k <= plan->seams; k++) {
        int length = run_length(plan, k), start = run_start(plan, k);
        for (int i = 0; i < parts[k]; i++) {
            int extra = length % parts[k], before = i < extra ? i : extra;
            l->first[stage++] = start + length / parts[k] * i + before;
        }
    }
    l->first[stage] = plan->layers;
}

// Fewer stages than runs: every boundary is a seam. Packs whole runs into stages of at most `most` layers,
// left to right; false when that takes more than pp stages. Writes the stages when first is not NULL.
static bool pack_runs(const depth_plan *plan, int pp, int most, int *first) {
    int stage = 0, held = 0, runs = plan->seams + 1;
    for (int k = 0; k < runs; k++) {
        int length = run_length(plan, k);
        if (length > most) return false;
        bool must_leave = runs - k <= pp - 1 - stage; // each stage to come needs a run of its own
        if (held > 0 && (held + length > most || must_leave)) {
            if (++stage == pp) return false;
            held = 0;
        }
        if (first && held == 0) first[stage] = run_start(plan, k);
        held += length;
    }
    return true;
}

static void group_runs(const depth_plan *plan, int pp, layout *l) {
    int low = 1, high = plan->layers; // the smallest `most` that fits
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (pack_runs(plan, pp, mid, NULL))
            high = mid;
        else
            low = mid + 1;
    }
    pack_runs(plan, pp, low, l->first);
    l->first[pp] = plan->layers;
}

static err *choose_stages(const depth_plan *plan, int pp, layout *l) {
    if (pp <= plan->seams) {
        group_runs(plan, pp, l);
        return NULL;
    }
    int *parts = calloc((size_t)plan->seams + 1, sizeof *parts);
    if (!parts) return err_new(ERR_SYSTEM, "no memory for a layout of %d stages", pp);
    deal_stages(plan, pp, parts);
    cut_runs(plan, parts, l);
    free(parts);
    return NULL;
}

err *layout_make(const depth_plan *plan, int pp, const int *counts, layout **out) {
    if (pp < 1) return err_new(ERR_CONFIG, "%d pipeline stages, expected at least 1", pp);
    if (pp > plan->layers)
        return err_new(ERR_CONFIG, "%d pipeline stages for %d layers: every stage needs one, use at most %d",
                       pp, plan->layers, plan->layers);
    layout *l = layout_new(pp, plan->layers);
    if (!l) return err_new(ERR_SYSTEM, "no memory for a layout of %d stages", pp);
    err *e = counts ? use_counts(counts, l) : choose_stages(plan, pp, l);
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
