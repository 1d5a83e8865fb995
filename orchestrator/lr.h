// Learning-rate schedules.
#ifndef SOLAR_LR_H
#define SOLAR_LR_H

#include <stdio.h>

#include "config.h"
#include "depth.h"
#include "table.h"

// Phase i of the schedule, 0 made of the keys of `schedule` itself, and the last step of it. There are
// 1 + schedule.n_phases.
schedule_phase schedule_part(const config *c, int i, int64_t *end);

// Learning rate of an update (step 1 is the first), a function of the step alone. A phase of `steps` steps
// from step `at` on (its end, unless it says otherwise) is at k = step - at:
//   warm-up, k <= warmup: linear from the rate at step `at` (0 in the first phase) to lr; after it
//   wsd       lr, and over the last `decay` steps linear to min_lr (Hu et al. 2024)
//   cosine    half a cosine from lr to min_lr at the last step
//   linear    a line from lr to min_lr at the last step
//   constant  lr
// A later phase warms up again from where the one before it has come to (Ibrahim et al. 2024).
double learning_rate(const config *c, int64_t step);
// A line for every phase.
void learning_rate_print(FILE *out, const config *c);
// Multiplier of a tensor's learning rate (lr_scale.*).
double learning_rate_scale(const config *c, const depth_plan *plan, const tensor_row *r);

#endif
