// The data x pipeline x tensor grid of ranks; the one place that maps ranks to coordinates. Which of the
// three neighbouring ranks share is the order of the mesh: by default tensor ranks are neighbours (and so on
// one host), then data, then pipeline.
#ifndef SOLAR_MESH_H
#define SOLAR_MESH_H

#include <stdbool.h>
#include <stdint.h>

#include "depth.h"
#include "err.h"

// Innermost first: in MESH_TDP rank = (p*dp + d)*tp + t.
typedef enum mesh_order { MESH_TDP, MESH_TPD, MESH_DTP, MESH_DPT, MESH_PTD, MESH_PDT } mesh_order;

typedef struct mesh {
    int world, rank;
    int dp, pp, tp; // sizes
    int d, p, t;    // this rank's place
    mesh_order order;
} mesh;

// dp is what is left: world must be a multiple of pp*tp, else ERR_CONFIG. Not collective.
err *mesh_make(int world, int rank, int pp, int tp, mesh_order order, mesh *out);
int mesh_rank(const mesh *m, int d, int p, int t);

// Which layers a stage holds: stage i has layers first[i] .. first[i+1]-1. With interleaving (virtual stages)
// there are a multiple of `ranks` stages, and pipeline rank p holds stages p, p + ranks, p + 2 ranks, ...
typedef struct layout {
    int stages; // virtual stages
    int ranks;  // pipeline ranks
    int layers;
    int *first; // [stages+1]
} layout;

// What to cut the layers into. Costs are in units of one layer's: the first stage also holds the embedding,
// the last the head, and both are weighed in.
typedef struct layout_shape {
    int pp, interleave; // pipeline ranks; virtual stages of each
    double embed_cost, head_cost;
    const int64_t *counts; // NULL, or explicit layers of every virtual stage, pp*interleave numbers
    bool seam_inside;      // with counts: a seam may lie inside a stage although a boundary could lie on it
} layout_shape;

// Splits the layers of a plan so that the most expensive stage costs as little as it can, with stage
// boundaries on the seams; among equals, the most even, and then the one with the larger stages first. With
// fewer boundaries than seams all boundaries are on seams (the rest fall inside a stage, and the printed plan
// says which). Every stage holds at least one layer: more stages than layers is ERR_CONFIG, as are counts
// that do not add up to the layers or leave a seam inside a stage for no need.
err *layout_make(const depth_plan *plan, const layout_shape *shape, layout **out);
void layout_free(layout *l);
int layout_stage(const layout *l, int layer); // virtual stage
int layout_rank(const layout *l, int layer);  // pipeline rank that holds it

// Does every layer stand on exactly one stage, in order? Checked again behind whoever made the layout;
// ERR_CONFIG shows the map.
err *layout_check(const depth_plan *plan, const layout *l);
// Stages of so many layers as lines of text, donors and seams marked, layers on no stage and stages beyond
// the last layer too; caller frees, NULL without memory.
char *layout_map(const depth_plan *plan, const int64_t *counts, int stages);
// The same error with the map of the layers asked for behind it; e as it is when there are no counts.
err *layout_with_map(err *e, const depth_plan *plan, const int64_t *counts, int stages);

#endif
