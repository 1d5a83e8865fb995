// The arithmetic of the order of samples: pure functions of (seed, position).
#ifndef SOLAR_STREAM_ORDER_H
#define SOLAR_STREAM_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

enum { DEAL_BLOCK = 65536 }; // positions dealt out among the sources at a time

// ---- one pass over the windows of a source
typedef struct permutation {
    uint64_t count;
    int low_bits, high_bits;
    uint64_t key[8];
} permutation;
// A permutation of 0..count-1 that (seed, source, pass) names; count > 0.
permutation permutation_make(uint64_t count, uint64_t seed, uint64_t source, uint64_t pass);
uint64_t permutation_at(const permutation *p, uint64_t i);

// ---- the blend
typedef struct deal {
    int sources;
    uint32_t *places;            // [sources]: of a block, how many
    uint16_t source[DEAL_BLOCK]; // whose turn it is
    uint16_t turn[DEAL_BLOCK];   // and the how-manieth of the block
} deal;
// Weights must be finite and not negative, and one of them positive; ERR_CONFIG else. A source of weight 0
// has no turns, and the others have those they would have without it. Of the first k places of a block a
// source has its share, k * places / DEAL_BLOCK, give or take less than one.
err *deal_make(const double *weight, int sources, deal **out);
void deal_free(deal *d);
// Adds every source's turns at positions 0 .. positions-1 to turns[].
void deal_count(const deal *d, uint64_t positions, uint64_t *turns);
// Position -> source and the index among all of that source's turns.
void deal_at(const deal *d, uint64_t position, int *source, uint64_t *index);

#endif
