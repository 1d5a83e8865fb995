// Loops for x86-64 with AVX2 and FMA.
#include "lanes_head.inc"

#ifdef __x86_64__
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define W                   8
#define LANES               lanes_avx2
#define LANES_NAME          "avx2"
#define SUPPORTED           (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define vsqrt(v)            ((vf)_mm256_sqrt_ps((__m256)(v)))
#define vmax(a, b)          ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define vmin(a, b)          ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define LANE_NUMBERS        ((vi){0, 1, 2, 3, 4, 5, 6, 7})
#define part(n)             ((__m256i)(LANE_NUMBERS < (int32_t)(n)))
#define load_part(x, n)     ((vf)_mm256_maskload_ps(x, part(n)))
#define store_part(y, v, n) _mm256_maskstore_ps(y, part(n), (__m256)(v))

extern const lanes lanes_avx2;
#include "lanes.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
