// Inner loops over contiguous floats: the only code that is compiled once for each instruction set
// (lanes_*.c include lanes.inc), and the only place where vectors appear. No threads, no dtypes but the
// two conversions. Loops run in a fixed order, so a result depends on the instruction set and on the
// arguments only.
#ifndef SOLAR_CPU_LANES_H
#define SOLAR_CPU_LANES_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "ops.h"

// Columns of a panel of B; rows of tiles are padded to a multiple of it.
enum { PANEL = 16 };

// C[m,n] (+)= A[m,k] B[k,n], each element summed in order of k by one accumulator. For `multiply_pairs` a
// unit of A or B is not a float but two bf16 that are neighbours along k, and k counts pairs.
typedef struct tile {
    int64_t m, n, k;
    const float *a; // element (i,p) at a[(i / strip) * a_strip + (i % strip) * a_row + p * a_col]
    int64_t a_strip, a_row, a_col;
    const float *b; // element (p,j) at b[(j / PANEL) * b_panel + p * b_row + j % PANEL]; every panel is
    int64_t b_panel, b_row; // PANEL floats wide in memory, whatever n is
    float *c;
    int64_t ldc;
    bool add;
} tile;

// A tile of attention's scores q.k, transposed: rows are keys, columns queries (a multiple of PANEL), ld
// floats between rows.
typedef struct scores {
    int64_t keys, queries, ld;
    const int32_t *first,
        *last; // column q sees keys first[q]..last[q], weights elsewhere are zero; NULL: all
    float scale;
    float *p;     // scores; then weights, unless they are wanted as bf16
    float *pairs; // NULL, or gets pairs of bf16 along keys: forward of weights, backward of ds
    // backward only
    float *ds;             // d_out v^T; then ds, unless wanted as bf16
    bf16 *p_half, *d_half; // with `pairs`: weights and ds, ld bf16 between rows
} scores;

// The scalars of an AdamW step, ready for the loop.
typedef struct adamw_step {
    float grad_scale, keep, beta1, beta2, rate, root, eps; // keep = 1-lr*decay, rate = lr/(1-beta1^t),
} adamw_step;                                              // root = 1/sqrt(1-beta2^t)

typedef struct lanes {
    const char *name;
    int strip; // rows that `multiply` takes at a time
    bool (*supported)(void);

    void (*to_float)(float *y, const bf16 *x, int64_t n);
    void (*from_float)(bf16 *y, const float *x, int64_t n);
    void (*split)(bf16 *near, int16_t *rest, const float *x, int64_t n); // float_split
    void (*join)(float *y, const bf16 *near, const int16_t *rest, int64_t n);
    void (*multiply)(const tile *t);
    // On pairs of bf16, by the dot instruction: both products of a pair and the sum so far in fp32, rounded
    // to nearest; subnormal inputs and results count as zero. NULL: this set has no such instruction.
    void (*multiply_pairs)(const tile *t);
    // to[i] = the pair x[i], y[i] for i < n; y NULL: zeros
    void (*interleave)(float *to, const bf16 *x, const bf16 *y, int64_t n);
    // to[p*ldt + j] = x[j*ld + p] for p < k, j < n; columns n..PANEL-1 are zeroed
    void (*transpose)(float *to, int64_t ldt, const float *x, int64_t ld, int64_t k, int64_t n);

    // to[i/strip*stride + i%strip] = x[i] for i < n
    void (*spread_strips)(float *to, int64_t stride, const float *x, int64_t n);
    // The same for panels; the columns that x does not fill of the last one are zeroed.
    void (*spread_panels)(float *to, int64_t stride, const float *x, int64_t n);

    void (*add)(float *y, const float *a, const float *b, int64_t n); // y = a + b
    void (*scale)(float *y, float c, int64_t n);                      // y *= c
    float (*dot)(const float *x, const float *y, int64_t n);
    float (*max)(const float *x, int64_t n);                                       // may pass over NaN
    float (*exp_sum)(const float *x, float shift, int64_t n);                      // sum of exp(x - shift)
    void (*scaled_exp)(float *y, const float *x, float c, float shift, int64_t n); // y = c exp(x - shift)
    // Scores to weights of attention: p = exp(scale p - most), where most[q] becomes the greatest of itself
    // and its column (may pass over NaN, the sum does not). What was gathered with the former most (the sum
    // of weights, and `rows` rows of out) is rescaled; the new weights are added to sum.
    void (*weigh)(const scores *s, float *most, float *sum, float *out, int64_t rows);
    // Backward: p = exp(scale p - lse[q]), ds = p (ds - delta[q]) scale
    void (*weigh_back)(const scores *s, const float *lse, const float *delta);

    // y = round(x*rstd) * w; `half`: the rounding is to bf16, else none
    void (*norm)(float *y, const float *x, const float *w, float rstd, bool half, int64_t n);
    float (*dot3)(const float *x, const float *y, const float *z, int64_t n);
    // dx = (residual or 0) + rstd*(w dy - x c);  dw += dy * round(x*rstd)
    void (*norm_back)(float *dx, float *dw, const float *residual, const float *dy, const float *x,
                      const float *w, float rstd, float c, bool half, int64_t n);
    void (*rotate)(float *x1, float *x2, const float *cos, const float *sin, bool inverse, int64_t n);
    void (*swiglu)(float *y, const float *gate, const float *up, int64_t n);
    void (*swiglu_back)(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                        int64_t n);
    double (*sum)(const float *x, int64_t n);
    double (*sumsq)(const float *x, int64_t n);
    // ---- moments (moments.h). bits: a number of moment_random for every element
    void (*random)(uint32_t *bits, moment_dice d, uint32_t place, int64_t n); // places follow each other
    void (*round)(bf16 *y, const float *x, const uint32_t *bits, bool second, int64_t n);
    float (*largest)(const float *x, int64_t n); // magnitude
    void (*decode)(float *y, const uint8_t *code, float largest, bool second, int64_t n);
    void (*encode)(uint8_t *code, const float *x, float largest, bool second, const uint32_t *bits,
                   int64_t n); // largest > 0
    void (*adamw)(float *w, float *m, float *v, const float *grad, const adamw_step *s, int64_t n);
} lanes;

// The widest set that this machine runs.
const lanes *lanes_best(void);
// All that this build holds, widest first, ended by NULL.
const lanes *const *lanes_all(void);

#endif
