// The forms in which the optimizer keeps its two moments, m and v, between updates, which are made in fp32.
//
// MOMENTS_BF16: rounded to bf16 at random, up or down with probabilities that make the mean exact: v changes
// by less than bf16 can tell from one update to the next, and rounding to nearest would leave it where it is.
// MOMENTS_INT8: 8-bit codes of the numbers of a block of 64 beside the largest magnitude in the block, in
// fp32 (block-wise quantisation: Dettmers et al. 2022). What is coded is the fourth root: code c of v is
// (c/255)^4, code c and a sign of m are (c/127)^4 of the largest. Steps between codes are 1.6 % (of m 3.1 %)
// of a number as large as the largest, 5 % (10 %) of one a hundredth of it. Codes are taken at random too. A
// v that is not zero never has code 0, so that m is divided by no less than 1.5e-5 of the largest sqrt(v) of
// the block; the least m is 4e-9 of the largest.
//
// The random numbers depend on a key and on the element's place in the whole tensor: not on the mesh.
#ifndef SOLAR_MOMENTS_H
#define SOLAR_MOMENTS_H

#include <math.h>
#include <stdbool.h>

#include "dtype.h"

typedef enum moments_form { MOMENTS_F32, MOMENTS_BF16, MOMENTS_INT8 } moments_form;
enum { MOMENT_BLOCK = 64 };

static inline size_t moments_size(moments_form f) { return f == MOMENTS_F32 ? 4 : f == MOMENTS_BF16 ? 2 : 1; }

// Blocks of n numbers, the first of which has at most `lead`.
static inline int64_t moments_blocks(int64_t n, int64_t lead) {
    return n <= 0 ? 0 : n <= lead ? 1 : 1 + (n - lead + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
}

// ---- random numbers: two rounds of MurmurHash3's finaliser (Appleby) over a key and a place

ON_BOTH static inline uint32_t moment_mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

// What is the same for the 2^32 places that differ in the lower half only.
typedef struct moment_dice {
    uint32_t first, second;
} moment_dice;

ON_BOTH static inline moment_dice moment_dice_of(uint64_t key, uint64_t place) {
    return (moment_dice){(uint32_t)key, (uint32_t)(key >> 32) + (uint32_t)(place >> 32) * 0x9e3779b9u};
}

// 32 bits: the lower half rounds m, the upper v.
ON_BOTH static inline uint32_t moment_random(moment_dice d, uint32_t place) {
    return moment_mix(moment_mix(place ^ d.first) + d.second);
}

// ---- bf16

// Up with probability (x - lower)/(upper - lower); bits: 16 of them. What is not finite stays so.
ON_BOTH static inline bf16 moment_round(float x, uint32_t bits) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7f800000u) == 0x7f800000u) return bf16_from_float(x);
    return (bf16)((u + bits) >> 16);
}

// ---- 8-bit codes. `second`: of v, else of m. `largest`: of the block.

ON_BOTH static inline float moment_levels(bool second) { return second ? 255.0f : 127.0f; }

// (c/levels)^4; the factor is such that the last code gives exactly 1.
ON_BOTH static inline float moment_share(float c, bool second) {
    float r = c * (second ? 1.0f / 255.0f : 1.0f / 127.0f);
    return (r * r) * (r * r);
}

ON_BOTH static inline float moment_decode(uint8_t code, float largest, bool second) {
    float x = moment_share((float)(second ? code : code & 127), second) * largest;
    return !second && (code & 128) ? -x : x;
}

// Code c with the sign of x, within bounds.
ON_BOTH static inline uint8_t moment_code(float x, int c, bool second) {
    if (second) return (uint8_t)(c > 255 ? 255 : c < 1 && x > 0 ? 1 : c);
    return (uint8_t)((c > 127 ? 127 : c) | (x < 0 ? 128 : 0));
}

// One of the two codes around x; bits: 16 random ones.
ON_BOTH static inline uint8_t moment_encode(float x, float largest, bool second, uint32_t bits) {
    if (!(largest > 0)) return 0;
    float share = fabsf(x) / largest;
    int c = (int)(sqrtf(sqrtf(share)) * moment_levels(second));
    float low = moment_share((float)c, second), high = moment_share((float)(c + 1), second);
    if ((float)bits * 0x1p-16f * (high - low) < share - low) c++;
    return moment_code(x, c, second);
}

// The nearest code: of what moment_decode gave, the very one it was given.
ON_BOTH static inline uint8_t moment_nearest(float x, float largest, bool second) {
    if (!(largest > 0)) return 0;
    return moment_code(x, (int)(sqrtf(sqrtf(fabsf(x) / largest)) * moment_levels(second) + 0.5f), second);
}

#endif
