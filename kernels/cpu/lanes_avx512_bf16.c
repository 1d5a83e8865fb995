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

#define LANES              lanes_avx512_bf16
#define LANES_NAME         "avx512-bf16"
#define SUPPORTED          (HAS_AVX512 && __builtin_cpu_supports("avx512bf16"))
#define dot_pairs(s, a, b) ((vf)_mm512_dpbf16_ps((__m512)(s), (__m512bh)(a), (__m512bh)(b)))

extern const lanes lanes_avx512_bf16;
#include "lanes_avx512.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
