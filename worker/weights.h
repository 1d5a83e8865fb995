// Filling a part's weights and optimizer state: from files, slice by slice, or from a seed.
#ifndef SOLAR_WEIGHTS_H
#define SOLAR_WEIGHTS_H

#include "part.h"
#include "safetensors.h"

// Every weight of the part (and the fp32 master) from a model directory's files: this rank reads its own
// slices only. donor_names: the files are the base model's, so that deepening happens here: names are the
// donors', and rows that begin as zeros are zeros. Not collective.
err *weights_load(part *p, const st_set *files, bool donor_names);
// init: random. Matrices N(0, init_range), norms 1, biases 0, and zeros where the row says so. An element
// depends on (seed, tensor name, its place in the whole tensor) only, never on the mesh.
err *weights_random(part *p, uint64_t seed);

// Squares of the distance of this data rank's share of a weight from its donor's in the base model's files
// (from zeros where the row begins so), and of the donor's own norm, summed in fp64. Not collective.
err *weights_distance(part *p, const weight *w, const st_set *donors, double *moved, double *donor);

// The optimizer tensors that belong to a weight, in the order they are saved.
typedef enum optim_kind { OPTIM_M, OPTIM_V, OPTIM_MASTER, OPTIM_KINDS } optim_kind;
int weights_optim_kinds(dtype dt); // 2, or 3 when there is a master copy
float *weights_optim_data(const weight *w, optim_kind k);

#endif
