// The update of the weights whose optimizer state is this rank's: AdamW, with moments that lie on the device
// or come from the host's memory and go back there. Not collective.
#ifndef SOLAR_UPDATE_H
#define SOLAR_UPDATE_H

#include "part.h"

typedef struct step_options {
    double lr, beta1, beta2, eps, weight_decay, clip_norm; // clip_norm 0: off
    bool scale_lr;                                         // by every weight's lr_scale
    uint64_t seed; // of the random numbers that moments are rounded by (moments.h)
} step_options;

// Offloaded moments go through two buffers, so that one chunk comes and one goes while one is updated.
typedef struct updater {
    part *p;
    event *come[2], *done[2], *gone[2]; // of each buffer: its chunk is there, updated, back in host memory
    int64_t turn;
} updater;

err *updater_open(part *p, updater *out);
void updater_close(updater *u);
// update: 1 for the first. scale: what gradients are multiplied by. The update is queued on
// return, and complete where moments are offloaded.
err *updater_run(updater *u, int64_t update, const step_options *o, double scale);
// What the learning rate of a weight is multiplied by in such a step; 0: it is frozen.
float update_lr_scale(const step_options *o, const weight *w);

#endif
