// Placing the weights of a part: shared by part.c and part_weights.c only.
#ifndef SOLAR_PART_WEIGHTS_H
#define SOLAR_PART_WEIGHTS_H

#include "part.h"

// Which tensors this rank holds. Needs p->layer and p->first, p->last.
err *part_list_weights(part *p);
// Memory of weights, gradients, and optimizer state, in the flat order: embedding, layers, final norm, head.
void part_place_weights(part *p);

#endif
