// What each layer does in a deepened model: how hard it is pulled, how far it has moved from its donor, and
// what it does to the residual stream. Taken right after a step, from what the step left behind.
#ifndef SOLAR_SEAM_H
#define SOLAR_SEAM_H

#include "comm.h"
#include "part.h"
#include "safetensors.h"

typedef struct layer_report {
    double grad_norm; // of the layer's tensors, before clipping
    double distance;  // |w - donor| / |donor| over the layer's tensors; NaN without donors
    double rms;    // root mean square of the layer's output, over the last micro-batch of the first data rank
    double cosine; // between input and output of the layer: sum(x y) / sqrt(sum x^2 sum y^2) over the same
} layer_report;

// One report for every layer of the whole model, out[plan->layers], the same on all ranks. donors: the base
// model's files, NULL when the weights did not come from there; each rank reads the slices that it counts.
// grad_scale: the trainer's, of the step. Call it after train_step with no step under way. Collective over
// all ranks.
err *seam_report(part *p, comm *c, const st_set *donors, double grad_scale, layer_report *out);

#endif
