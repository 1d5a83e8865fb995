// Filling a part's weights: from files, slice by slice, or from a seed.
#ifndef SOLAR_WEIGHTS_H
#define SOLAR_WEIGHTS_H

#include "part.h"
#include "safetensors.h"

// Host memory for the two halves of some fp32 numbers (float_split).
typedef struct halves_buffer {
    bf16 *near;
    int16_t *rest;
} halves_buffer;
err *halves_open(halves_buffer *h); // also to be closed after an error
void halves_close(halves_buffer *h);

// Puts n fp32 values, in host memory, at element `at` of a weight's slice. bf16 weights are rounded to
// nearest; of elements whose optimizer state is this rank's no bit is lost. Not collective.
err *weights_put(part *p, weight *w, int64_t at, const float *f, int64_t n, halves_buffer *h);

// Every weight of the part, in fp32, from a model directory's files: this rank reads its own
// slices only. donor_names: the files are the base model's, so that deepening happens here: names are the
// donors', and rows that begin as zeros are zeros. Not collective.
err *weights_load(part *p, const st_set *files, bool donor_names);
// init: random. Matrices N(0, init_range), norms 1, biases 0, and zeros where the row says so. An element
// depends on (seed, tensor name, its place in the whole tensor) only, never on the mesh.
err *weights_random(part *p, uint64_t seed);

// Squares of the distance of this data rank's share of a weight from its donor's in the base model's files
// (from zeros where the row begins so), and of the donor's own norm, summed in fp64. Not collective.
err *weights_distance(part *p, const weight *w, const st_set *donors, double *moved, double *donor);

#endif
