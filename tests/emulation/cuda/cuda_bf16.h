// bf16 conversions for the machine of emulate.cpp.
#ifndef EMULATED_CUDA_BF16_H
#define EMULATED_CUDA_BF16_H

#include "dtype.h"

struct emulated_bf16 {
    uint16_t bits;
};
inline emulated_bf16 __float2bfloat16_rn(float x) { return {bf16_from_float(x)}; }
inline uint16_t __bfloat16_as_ushort(emulated_bf16 x) { return x.bits; }

#endif
