// Depth plan: which base layer (donor) each layer of the scaled model is copied from.
#ifndef SOLAR_DEPTH_H
#define SOLAR_DEPTH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

typedef struct depth_plan {
    int base_layers; // n
    int layers;      // s
    int *donor;      // [s], each in 0..n-1
    int seams;       // layers i > 0 with donor[i] != donor[i-1]+1
    int *seam;       // [seams], ascending: a seam lies in front of layer seam[i]
    bool identity;   // every layer is its own donor and s == n
} depth_plan;

// SOLAR's plan: 0..n-m-1 then m..n-1. Any 0 <= m < n; else ERR_CONFIG.
err *depth_from_m(int n, int m, depth_plan **out);
// "0-23,8-31" (inclusive ranges or single layers). Errors name the part, and what is legal.
err *depth_from_ranges(int n, const char *ranges, depth_plan **out);
err *depth_identity(int n, depth_plan **out);
void depth_free(depth_plan *p);
// "0-23,8-31"; caller frees.
char *depth_text(const depth_plan *p);

#endif
