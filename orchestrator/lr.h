// Learning-rate schedules.
#ifndef SOLAR_LR_H
#define SOLAR_LR_H

#include "config.h"
#include "depth.h"
#include "table.h"

// Learning rate of an update (step 1 is the first). Warm-up: linear, lr*step/warmup. After it
//   wsd       lr, and over the last `decay` steps linear to min_lr (Hu et al. 2024)
//   cosine    half a cosine from lr to min_lr at the last step
//   linear    a line from lr to min_lr at the last step
//   constant  lr
double learning_rate(const config *c, int64_t step);
// Multiplier of a tensor's learning rate (lr_scale.*).
double learning_rate_scale(const config *c, const depth_plan *plan, const tensor_row *r);

#endif
