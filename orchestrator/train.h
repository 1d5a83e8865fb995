// A training run: the coordinator's side of `solar train`.
#ifndef SOLAR_TRAIN_H
#define SOLAR_TRAIN_H

#include "../worker/checkpoint.h"
#include "../worker/step.h"
#include "config.h"
#include "engine.h"
#include "lives.h"
#include "metrics.h"
#include "run_lock.h"
#include "stream.h"

enum { MAX_VALID = 16 };

typedef struct training {
    const world *w;
    config *cfg;
    char *config_text; // resolved
    char *plan_text;   // rank 0
    blueprint b;
    mesh m;
    device *dev;
    comm *c;
    char tokenizer_sha256[65]; // of the base model; "" when it has none
    stream *data;
    valid_set *valid[MAX_VALID];
    part *p;
    trainer *t;
    metrics *log;  // rank 0
    run_lock lock; // rank 0
    lives diary;   // rank 0
    run_state state;
    bool resumed, accept_data, other_valid; // other_valid: not the validation sets that the run began with
    // progress
    double begin; // of this life's first step
    int64_t first_step;
    double loss_sum; // since the last line of the log
    int64_t loss_count;
} training;

// Signals that ask for a stop set a flag; the run saves at the next step boundary and ends with exit
// status 75.
void training_catch_signals(void);
bool training_signalled(void);

// Everything up to the first step: mesh, run directory, checkpoint or base weights, data, base model's own
// loss. Collective over all ranks.
err *training_open(training *t);
// Steps, evaluations and checkpoints until the end; ERR_RESUME when a signal stopped it. Collective.
err *training_run(training *t);
void training_close(training *t);

// evaluate.c: loss of the validation sets by `p`; per set to loss[], the mean over all tokens to *mean.
// Collective over all ranks; the same result everywhere. ERR_NUMERIC: it is not finite.
err *evaluate(training *t, part *p, double loss[MAX_VALID], double *mean);
// Loss of the base model on the same samples and mesh; NaN with a message where it cannot be measured.
err *evaluate_base(training *t);
// Evaluates the run's model, reports, and notes the recovery.
err *evaluate_run(training *t);

#endif
