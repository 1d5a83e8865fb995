// Element types of tensors in files and in memory.
#ifndef SOLAR_DTYPE_H
#define SOLAR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
static inline bf16 bf16_from_float(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16)((u >> 16) | 0x40u);
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#endif
