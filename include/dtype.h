// Element types of tensors in files and in memory.
#ifndef SOLAR_DTYPE_H
#define SOLAR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Functions that kernels of CUDA use too.
#ifdef __CUDACC__
#define ON_BOTH __host__ __device__
#else
#define ON_BOTH
#endif

typedef enum dtype { DT_F32, DT_BF16, DT_F16 } dtype; // F16 only in files, never computed with

static inline size_t dtype_size(dtype t) { return t == DT_F32 ? 4 : 2; }

typedef uint16_t bf16; // the upper half of an IEEE float

static inline float bf16_to_float(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

// Round to nearest, ties to even; NaN stays NaN (quiet).
ON_BOTH static inline bf16 bf16_from_float(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16)((u >> 16) | 0x40u);
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// An fp32 number in two halves: the bf16 nearest to it, and what it is more (or less) than that, counted in
// units of its last place. A tie goes away from zero: to-even would send 65,537 numbers to every even bf16,
// one more than 16 bits can tell apart. Exact for every number and both infinities; a NaN stays a NaN.
typedef struct halves {
    bf16 near;
    int16_t rest;
} halves;

ON_BOTH static inline halves float_split(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (halves){(bf16)((u >> 16) | 0x40u), 0};
    return (halves){(bf16)((u + 0x8000u) >> 16), (int16_t)(u & 0xffffu)};
}

ON_BOTH static inline float float_join(bf16 near, int16_t rest) {
    uint32_t u = ((uint32_t)near << 16) + (uint32_t)(int32_t)rest;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
