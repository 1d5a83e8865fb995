// kernels/cuda/ptx.cuh for the machine of emulate.cpp, which takes its place by coming first: the layouts of
// the PTX ISA, index by index. An address in shared memory is a distance from the beginning of `memory`.
#ifndef SOLAR_CUDA_PTX_CUH
#define SOLAR_CUDA_PTX_CUH

#include "cuda_runtime.h"
#include "dtype.h"

uint32_t shared_address(const void *p);
void copy_16(uint32_t to, const void *from, bool there);
void copy_4(uint32_t to, const void *from, bool there);
void copies_commit();
void emulated_copies_wait(unsigned left);
template <int LEFT> void copies_wait() { emulated_copies_wait(LEFT); }

void load_pieces(uint32_t (&r)[4], uint32_t row);
void load_transposed(uint32_t (&r)[4], uint32_t row);
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void store_shared_pair(uint32_t to, uint32_t pair);
uint4 load_shared_16(uint32_t from);

inline uint32_t pack_pair(float left, float right) {
    return bf16_from_float(left) | static_cast<uint32_t>(bf16_from_float(right)) << 16;
}
inline float power_of_2(float x) {
    float y = std::exp2(x);
    return std::fpclassify(y) == FP_SUBNORMAL ? 0 : y;
}

#endif
