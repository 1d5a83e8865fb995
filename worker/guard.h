// Judges a step before its update: a loss or gradient norm that is not finite, or far above those of the last
// steps. Every rank judges the same numbers, so all come to the same verdict without a word.
#ifndef SOLAR_GUARD_H
#define SOLAR_GUARD_H

#include <stdbool.h>

enum { GUARD_MOST = 1024 };

typedef enum step_verdict { STEP_GOOD, STEP_NOT_FINITE, STEP_LOSS_SPIKE, STEP_NORM_SPIKE } step_verdict;

typedef struct guard {
    double sigma; // 0: only what is not finite is bad
    int window;   // steps looked back on, 2..GUARD_MOST
    int count;    // good steps remembered, oldest first; spikes are judged once it has reached the window
    double loss[GUARD_MOST], norm[GUARD_MOST];
} guard;

// Sets what is judged by; of what is remembered, the last `window` steps stay.
void guard_set(guard *g, double sigma, int window);
// Bad: not finite; with sigma > 0 and a full window also more than mean + sigma standard deviations (at least
// a thousandth of the mean, so that a flat stretch does not make every ripple a spike) of the remembered
// steps. A good step is remembered, a bad one is not. g NULL: no spikes.
step_verdict guard_judge(guard *g, double loss, double norm);
const char *verdict_text(step_verdict v); // "loss or gradient norm not finite", ...

#endif
