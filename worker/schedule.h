// The order in which a pipeline rank works on the micro-batches of a step.
#ifndef SOLAR_SCHEDULE_H
#define SOLAR_SCHEDULE_H

#include "err.h"

typedef enum action_kind { ACT_FORWARD, ACT_BACKWARD } action_kind;

typedef struct action {
    action_kind kind;
    int micro;
    int v; // which of this rank's virtual stages
} action;

// Rank p of a pipeline of pp ranks with `interleave` virtual stages each, `micro` micro-batches. `out` gets
// 2*micro*interleave actions; the caller frees it. Backwards come in the order of the forwards of their
// stage.
//
// interleave 1 is 1F1B (Narayanan et al. 2019, PipeDream-flush): min(pp-p-1, micro) forwards, then one
// forward and one backward in turn, then the backwards that are left; at most pp-p micro-batches are in
// flight.
//
// interleave v > 1 is interleaved 1F1B (Narayanan et al. 2021): micro-batches go through in groups, a group
// through one virtual stage after the other. A group has pp micro-batches where that divides, else groups of
// equal size (by at most one) between pp and 2 pp - 1, or one group of them all when there are fewer than pp:
// any number is legal, and the idle share is (pp-1)/(v*micro + pp-1) whenever there are pp or more.
err *schedule_make(int pp, int p, int interleave, int micro, action **out);

// Most micro-batches of virtual stage v that are between their forward and their backward at any time.
int schedule_in_flight(const action *a, int n, int v);

#endif
