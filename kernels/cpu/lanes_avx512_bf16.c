// Loops for x86-64 with AVX-512 and its instructions for pairs of bf16 (AVX512_BF16).
#include "lanes_head.inc"

#ifdef __x86_64__
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma"))),   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")
#endif

#define LANES                   lanes_avx512_bf16
#define LANES_NAME              "avx512-bf16"
#define SUPPORTED               (HAS_AVX512 && __builtin_cpu_supports("avx512bf16"))
#define dot_pairs(s, a, b)      ((vf)_mm512_dpbf16_ps((__m512)(s), (__m512bh)(a), (__m512bh)(b)))
#define dot_half_pairs(s, a, b) ((v8)_mm256_dpbf16_ps((__m256)(s), (__m256bh)(a), (__m256bh)(b)))
// Rounded to nearest, subnormals to zero: what the products above take them for.
#define to_half(x) ((vh)_mm512_cvtneps_pbh((__m512)(x)))
#define pack_pairs(x, y)                                                                                     \
    ((vf)_mm512_permutexvar_epi16(PAIRED, (__m512i)_mm512_cvtne2ps_pbh((__m512)(y), (__m512)(x))))
#define PAIRED                                                                                               \
    _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,  \
                     4, 19, 3, 18, 2, 17, 1, 16, 0)

extern const lanes lanes_avx512_bf16;
#include "lanes_avx512.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
