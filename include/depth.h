// Depth plan: which base layer (donor) each layer of the scaled model is copied from.
#ifndef SOLAR_DEPTH_H
#define SOLAR_DEPTH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

// How a layer begins. Layers that are not LAYER_KEPT are new: put between those of the base model.
typedef enum layer_init {
    LAYER_KEPT,
    LAYER_COPY, // a copy of its donor
    LAYER_ZERO, // a copy whose attention and feed-forward outputs (o_proj, down_proj, their biases) are zero:
                // at first it passes its input through (Wu et al. 2024, LLaMA Pro)
} layer_init;

typedef struct depth_plan {
    int base_layers;  // n
    int layers;       // s
    int *donor;       // [s], each in 0..n-1
    layer_init *init; // [s]
    int fresh;        // layers that are new
    int seams; // kept layers whose donor does not follow that of the kept layer before; new ones make none
    int *seam; // [seams], ascending: a seam lies in front of layer seam[i]
    bool identity; // every layer is its own donor, none is new and s == n
} depth_plan;

// What a user may ask for: m, or layers, or neither (the base as it is); then layers inserted into that.
typedef struct depth_ask {
    int64_t m;          // < 0: not given
    const char *layers; // NULL: not given
    int64_t every;      // insert a copy of every k-th layer behind it; < 1: not given
    const char *after;  // or behind each of these layers (of the plan so far), "3,7,7"; NULL: not given
    const char *init;   // of the inserted layers: "zero_out" (NULL too) or "copy"
} depth_ask;

bool depth_asked(const depth_ask *a); // for anything but the base as it is
// What contradicts itself, whatever the model: m with layers, every with after, init without either, an
// unknown init. NULL when nothing does.
const char *depth_conflict(const depth_ask *a);
// ERR_CONFIG: such a conflict, and what the functions below refuse.
err *depth_make(int n, const depth_ask *a, depth_plan **out);

// SOLAR's plan: 0..n-m-1 then m..n-1. Any 0 <= m < n; else ERR_CONFIG.
err *depth_from_m(int n, int m, depth_plan **out);
// "0-23,8-31" (inclusive ranges or single layers). A part with z behind it is new and LAYER_ZERO, with c new
// and LAYER_COPY: "0-3,3z,4-7,7z". Errors name the part, and what is legal.
err *depth_from_ranges(int n, const char *ranges, depth_plan **out);
err *depth_identity(int n, depth_plan **out);
void depth_free(depth_plan *p);
// The form that depth_from_ranges reads; caller frees.
char *depth_text(const depth_plan *p);
// End of the stretch from layer i on whose donors follow each other and begin alike, as a line of a layer
// map.
int depth_run_end(const depth_plan *p, int i);
const char *layer_init_mark(layer_init k); // "", "c", "z"

#endif
