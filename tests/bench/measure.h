// What the benchmarks share: a clock, medians, and this processor's peak.
#ifndef SOLAR_BENCH_MEASURE_H
#define SOLAR_BENCH_MEASURE_H

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu.h"

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Sorts x.
static inline double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static inline void print_processor(void) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char text[256];
    while (f && fgets(text, sizeof text, f))
        if (!strncmp(text, "model name", 10)) {
            fputs(text, stdout);
            break;
        }
    if (f) fclose(f);
}

// ---- the peak: chains of multiply-adds that never leave the registers, as many as hide their latency

enum { CHAINS = 12 };

#ifdef __x86_64__
#define REGISTER "v"
#else
#define REGISTER "w"
#endif
#define PEAK_LOOP(vector, step)                                                                              \
    vector acc[CHAINS];                                                                                      \
    memset(acc, 0, sizeof acc);                                                                              \
    for (int c = 0; c < CHAINS; c++)                                                                         \
        __asm__ volatile("" : "+" REGISTER(acc[c])); /* not known to be equal */                             \
    for (int64_t i = 0; i < rounds; i++) {                                                                   \
        _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++) acc[c] = step;                             \
        __asm__ volatile("" : "+r"(i));                                                                      \
    }                                                                                                        \
    float out[CHAINS * sizeof(vector) / 4], sum = 0;                                                         \
    memcpy(out, acc, sizeof acc);                                                                            \
    for (size_t i = 0; i < sizeof out / 4; i++) sum += out[i];                                               \
    return sum;

#ifdef __x86_64__
#include <immintrin.h>
__attribute__((target("avx512f,avx512bf16"))) static float peak_pairs(int64_t rounds) {
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    PEAK_LOOP(__m512, _mm512_dpbf16_ps(acc[c], x, x))
}
__attribute__((target("avx512f"))) static float peak_avx512(int64_t rounds) {
    const __m512 x = _mm512_set1_ps(0.5f);
    PEAK_LOOP(__m512, _mm512_fmadd_ps(acc[c], x, x))
}
__attribute__((target("avx2,fma"))) static float peak_avx2(int64_t rounds) {
    const __m256 x = _mm256_set1_ps(0.5f);
    PEAK_LOOP(__m256, _mm256_fmadd_ps(acc[c], x, x))
}
#endif

typedef float four __attribute__((vector_size(16)));
static float peak_base(int64_t rounds) {
    const four x = {0.5f, 0.5f, 0.5f, 0.5f};
    PEAK_LOOP(four, acc[c] * x + x)
}

// The chain for an element type on a set of loops, and FLOP of one of its instructions.
static inline float (*peak_chain(const lanes *l, dtype dt, int *flop))(int64_t) {
#ifdef __x86_64__
    *flop = 64;
    if (dt == DT_BF16 && l->multiply_pairs) return peak_pairs;
    *flop = 32;
    if (!strncmp(l->name, "avx512", 6)) return peak_avx512;
    *flop = 16;
    if (!strcmp(l->name, "avx2")) return peak_avx2;
#endif
    (void)l, (void)dt;
    *flop = 8;
    return peak_base;
}

// GFLOP/s of all threads together in about `budget` seconds: the best of ten pieces.
static inline double measure_peak(const cpu_device *c, dtype dt, double budget) {
    int flop;
    float (*chain)(int64_t) = peak_chain(c->lanes, dt, &flop);
    int64_t rounds = (int64_t)(budget / 10 * 3e9 / CHAINS);
    double best = 0;
    float sum = 0;
    for (int s = 0; s < 10; s++) {
        double start = now();
#pragma omp parallel num_threads(c->threads) reduction(+ : sum) if (c->threads > 1)
        sum += chain(rounds);
        double rate = 1e-9 * flop * CHAINS * (double)rounds * c->threads / (now() - start);
        best = rate > best ? rate : best;
    }
    __asm__ volatile("" : : "r,m"(sum)); // so that the chains are not left out
    return best;
}

#endif
