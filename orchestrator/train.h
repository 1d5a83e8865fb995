// A training run: the coordinator's side of `solar train`.
#ifndef SOLAR_TRAIN_H
#define SOLAR_TRAIN_H

#include "../worker/checkpoint.h"
#include "../worker/step.h"
#include "config.h"
#include "engine.h"
#include "lives.h"
#include "measures.h"
#include "metrics.h"
#include "run_lock.h"
#include "slow.h"
#include "stream.h"
#include "wishes.h"

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
    metrics *log;      // rank 0
    measures measures; // rank 0
    slow_watch slow;   // rank 0
    run_lock lock;     // rank 0
    lives diary;       // rank 0
    char *life;        // this life's directory in the run's
    char *reports;     // directory for what ranks write when the job is stuck
    saver *saver;
    wishes wishes;
    int64_t saved_step; // of the newest checkpoint; -1: none
    bool owed;          // a checkpoint is due, and will be made when the last one is done
    run_state state;
    bool resumed, accept_data, take_over,
        other_valid; // other_valid: not the validation sets that the run began with
    // progress
    double begin; // of this life's first step
    int64_t first_step;
    double loss_sum; // since the last line of the log
    int64_t loss_count;
} training;

// Everything up to the first step: mesh, run directory, checkpoint or base weights, data, base model's own
// loss. Collective over all ranks.
err *training_open(training *t);
// Steps, evaluations and checkpoints until the end; ERR_RESUME when a signal stopped it. Collective.
err *training_run(training *t);
void training_close(training *t);

// saving.c. All are collective over all ranks.
err *saving_open(training *t);
// At a step boundary: carries on what is under way; begins a checkpoint when one is due or wanted. wanted: of
// all ranks. A checkpoint that comes to nothing is a warning, unless the run cannot go on.
err *saving_boundary(training *t, unsigned wanted, bool due);
// Waits for what is under way and makes the checkpoint of this step, unless it is there. What fails is an
// error.
err *saving_last(training *t);
void saving_close(training *t); // waits for what is under way

// evaluate.c: loss of the validation sets by `p`; per set to loss[], the mean over all predicted tokens to
// *mean. Collective over all ranks; the same result everywhere. ERR_NUMERIC: it is not finite.
err *evaluate(training *t, part *p, double loss[MAX_VALID], double *mean);
// Loss of the base model on the same samples and mesh; NaN with a message where it cannot be measured.
err *evaluate_base(training *t);
// Evaluates the run's model, reports, and notes the recovery.
err *evaluate_run(training *t);

#endif
