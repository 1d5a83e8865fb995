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

#define W          16
#define LANES      lanes_avx512
#define LANES_NAME "avx512"
#define SUPPORTED                                                                                            \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                              \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
#define vsqrt(v)            ((vf)_mm512_sqrt_ps((__m512)(v)))
#define vmax(a, b)          ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define vmin(a, b)          ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define LANE_NUMBERS        ((vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#define part(n)             ((__mmask16)((1u << (n)) - 1))
#define load_part(x, n)     ((vf)_mm512_maskz_loadu_ps(part(n), x))
#define store_part(y, v, n) _mm512_mask_storeu_ps(y, part(n), (__m512)(v))

extern const lanes lanes_avx512;
#include "lanes.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
