// Loops for x86-64 with AVX2 and FMA.
#include "lanes_head.inc"

#ifdef __x86_64__
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define W          8
#define LANES      lanes_avx2
#define LANES_NAME "avx2"
#define SUPPORTED  (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define vsqrt(v)   ((vf)_mm256_sqrt_ps((__m256)(v)))
#define vmax(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define vmin(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))

extern const lanes lanes_avx2;
#include "lanes.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
