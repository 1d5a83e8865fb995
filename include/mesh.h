// The data x pipeline x tensor grid of ranks; the one place that maps ranks to coordinates.
// Tensor ranks are neighbours, then data, then pipeline: rank = (p*dp + d)*tp + t.
#ifndef SOLAR_MESH_H
#define SOLAR_MESH_H

#include "depth.h"
#include "err.h"

typedef struct mesh {
    int world, rank;
    int dp, pp, tp; // sizes
    int d, p, t;    // this rank's place
} mesh;

// dp is what is left: world must be a multiple of pp*tp, else ERR_CONFIG. Not collective.
err *mesh_make(int world, int rank, int pp, int tp, mesh *out);
int mesh_rank(const mesh *m, int d, int p, int t);

// Which layers a pipeline stage holds: stage p has layers first[p] .. first[p+1]-1.
typedef struct layout {
    int stages;
    int layers;
    int *first; // [stages+1]
} layout;

// Splits the layers of a plan into pp stages of nearly equal size, stage boundaries on the seams.
// With fewer boundaries than seams, as many as possible lie on boundaries (the rest fall inside a stage,
// and the printed plan says which). Every stage holds at least one layer; more stages than layers is
// ERR_CONFIG. `counts` (or NULL): explicit layers per stage, pp numbers; must add up to the layers.
err *layout_make(const depth_plan *plan, int pp, const int *counts, layout **out);
void layout_free(layout *l);
int layout_stage(const layout *l, int layer);

#endif
