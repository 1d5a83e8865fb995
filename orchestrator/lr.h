// Learning-rate schedules.
#ifndef SOLAR_LR_H
#define SOLAR_LR_H

#include "config.h"

// Learning rate of an update (step 1 is the first). Warm-up: linear, lr*step/warmup. After it
//   wsd       lr, and over the last `decay` steps linear to min_lr (Hu et al. 2024)
//   cosine    half a cosine from lr to min_lr at the last step
//   linear    a line from lr to min_lr at the last step
//   constant  lr
double learning_rate(const config *c, int64_t step);

#endif
