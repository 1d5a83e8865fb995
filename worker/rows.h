// What lies between the products of a layer: the residual stream, norms and their gradients, [T,hidden].
// Without sequence parallelism every tensor rank holds all rows of it, and shares of sums are added up on all
// of them. With it (Korthikanti et al. 2022) a rank holds and adds up its own rows only, and the rows of all
// ranks are put together in front of the next product: as many bytes travel, and norms and memory are divided
// by the tensor ranks.
#ifndef SOLAR_ROWS_H
#define SOLAR_ROWS_H

#include "model.h"

// Token rows of the run, and those of them that this rank has between the products. Not collective.
int64_t rows_all(const run *r);
int64_t rows_own(const run *r);
// Where a product puts this rank's share [T,hidden] of a sum that rows_sum brings to x. Not collective.
void *rows_share(const run *r, void *x);
// x = sum over the tensor group of the shares. Collective over the tensor group.
err *rows_sum(const run *r, void *x);
// *all: x with the rows of all tensor ranks; x itself, or part.work.whole until the next call. Collective
// over the tensor group.
err *rows_gather(const run *r, void *x, void **all);

#endif
