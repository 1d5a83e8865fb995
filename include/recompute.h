// What of a layer's forward pass is kept for its backward pass, and what is computed again.
#ifndef SOLAR_RECOMPUTE_H
#define SOLAR_RECOMPUTE_H

typedef enum recompute_kind {
    RECOMPUTE_NONE,      // everything is kept
    RECOMPUTE_SELECTIVE, // inputs of products are kept or cheap to make: norms, attention and swiglu are made
                         // again
    RECOMPUTE_FULL,      // only the input of the layer is kept
} recompute_kind;

#endif
