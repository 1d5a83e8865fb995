// Summing gradients over data ranks while the backward pass still runs, bucket by bucket (ZeRO's
// reduce-scatter, Rajbhandari et al. 2020): every data rank gets the sums of its share of a bucket. Elements
// are added in rank order, so how the gradients are cut, and when which bucket travels, changes no bit.
// part.shape.reduce is how they travel: as bf16, every rank's gradient (the owner's too) is rounded before it
// is added in fp32. Gradients that are kept in bf16 travel so, and their sum is rounded to it once more.
#ifndef SOLAR_REDUCE_H
#define SOLAR_REDUCE_H

#include "comm.h"
#include "part.h"

typedef struct reducer reducer;
// Memory that a reducer takes beside the part's: the host's, or the device's when the ranks are linked.
size_t reduce_scratch_bytes(const mesh *m, bool linked);
err *reduce_open(part *p, comm *c, reducer **out);
void reduce_close(reducer *r);

// Begins a step: nothing is complete yet. Not collective.
void reduce_begin(reducer *r);
// The gradients of buckets that are complete once the backward pass is through `layer` (see bucket.layer)
// start on their way. Sums over other groups that their weights need come first (key/value heads held by
// several tensor ranks; with sequence parallelism, weights that all tensor ranks hold). Collective over the
// tensor group and over the data group, in the same order of layers.
err *reduce_ready(reducer *r, int layer);
// The rest, and the end of all: afterwards this rank's share of every bucket holds the sum over data ranks;
// without sharding all of it does. Collective over the tensor, data and tied groups.
err *reduce_finish(reducer *r);
// After the update of a sharded optimizer: every data rank's share of the weights to all. Collective over the
// data group; at once without sharding.
err *reduce_gather_weights(reducer *r);

#endif
