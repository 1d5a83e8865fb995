// The training step: one optimizer update of this rank's part, from the samples of one global batch.
#ifndef SOLAR_STEP_H
#define SOLAR_STEP_H

#include "comm.h"
#include "guard.h"
#include "part.h"
#include "schedule.h"

typedef struct step_options {
    double lr, beta1, beta2, eps, weight_decay, clip_norm; // clip_norm 0: off
    bool scale_lr;                                         // by every weight's lr_scale
} step_options;

typedef struct trainer {
    part *p;
    comm *c;
    int64_t seq_len, global_batch;
    int micro;            // micro-batches of a step on this rank
    action *order;        // [2*micro]
    int32_t *in, *target; // [micro*T] host
    transfer *sent;       // [slots] activations on their way to the next stage
    transfer sent_grad[2];
    bool scale_lr; // of the step under way
    guard *guard;  // judges steps; the run keeps it. NULL: only what is not finite is bad
} trainer;

// What all ranks know after a step. Signals are told with it, so that all act at the same boundary.
typedef struct step_report {
    double loss;          // mean over all unmasked tokens of the global batch
    double grad_norm;     // of the whole model, before clipping
    step_verdict verdict; // not STEP_GOOD: no update was made
    int signals;          // ranks that asked to stop
} step_report;

// p was made with PART_TRAIN, batch sequences of seq_len tokens. Not collective.
err *trainer_open(part *p, comm *c, int64_t global_batch, trainer **out);
void trainer_close(trainer *t);
// rows: this rank's samples of the step, [global_batch/dp][seq_len+1] host token ids (every tensor and
// pipeline rank of a data rank passes the same). step names the step in messages; update is 1 for the first
// update (Adam's bias correction counts updates, not steps that were skipped). Collective over all ranks.
err *train_step(trainer *t, int64_t step, int64_t update, const step_options *o, const int32_t *rows,
                bool signal, step_report *out);
// The step up to the reduced gradients, without an update: for tests. Collective over all ranks.
err *train_gradients(trainer *t, const int32_t *rows, step_report *out);

#endif
