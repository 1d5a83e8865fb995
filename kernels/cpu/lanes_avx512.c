// Loops for x86-64 with AVX-512 (F, BW, DQ, VL).
#include "lanes_head.inc"

#ifdef __x86_64__
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))),              \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif

#define LANES      lanes_avx512
#define LANES_NAME "avx512"
#define SUPPORTED  HAS_AVX512

extern const lanes lanes_avx512;
#include "lanes_avx512.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
