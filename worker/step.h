// The training step: one optimizer update of this rank's part, from the samples of one global batch.
#ifndef SOLAR_STEP_H
#define SOLAR_STEP_H

#include "comm.h"
#include "guard.h"
#include "part.h"
#include "reduce.h"
#include "update.h"

// What a rank asks of all at the next step boundary; bits, so that several can be asked for at once.
// BUSY asks for nothing: this rank is still writing a checkpoint.
enum { WANT_STOP = 1, WANT_SAVE = 2, WANT_EVAL = 4, WANT_BUSY = 8 };

// Where a rank spends its time, waiting for others left out.
typedef enum step_phase {
    PHASE_DATA,     // until the samples of the step are there; set by who calls train_step
    PHASE_FORWARD,  //
    PHASE_BACKWARD, // with the loss
    PHASE_REDUCE,   // sums of gradients that were left for the end, norms
    PHASE_UPDATE,   // of the step before
    PHASES,
} step_phase;
const char *phase_name(step_phase p); // "forward", ...

// What every rank tells all others at the end of a step: the one collective that all ranks take part in.
typedef struct step_vote {
    double loss, squares; // this rank's share of the loss and of the squared gradient norm
    double predicted;     // targets of this rank's samples that are not masked
    double wanted;        // bits
    uint64_t digest;      // of this rank's samples (samples.h)
    float busy[PHASES];   // seconds
    traffic sent;         // by this rank since the vote before; what is between steps left out
} step_vote;

// What all ranks know after a step. What any rank wants is told with it, so that all act at the same
// boundary.
typedef struct step_report {
    double loss;            // mean over all unmasked tokens of the global batch
    double grad_norm;       // of the whole model, before clipping
    step_verdict verdict;   // not STEP_GOOD: no update was made
    unsigned wanted;        // bits that any rank asked for
    uint64_t digest;        // of the samples of the global batch: the same on every mesh
    const step_vote *votes; // [world], of this step, until the next one
} step_report;

// When an action of the last step had what it works on, and when it was done: by comm_now.
typedef struct action_time {
    double start, end;
} action_time;

typedef struct trainer {
    part *p;
    comm *c;
    reducer *reduce;
    updater update;
    int64_t seq_len, global_batch;
    int micro, actions; // micro-batches of a step on this rank; actions of part.schedule
    token_rows rows;    // [micro*T]
    uint64_t digest;    // of this rank's samples of the step
    int32_t *staged;    // [4][micro*T] pinned, on the way to the device; NULL: they need no copy
    double grad_scale;  // of the last step: what its gradients have to be multiplied by
    transfer **sent;    // [vstages][slots] activations on their way to the next stage
    transfer sent_grad[3], arriving;
    int backwards;       // begun in this step: which of work.grad is at work
    bool scale_lr;       // of the step under way
    guard *guard;        // judges steps; the run keeps it. NULL: only what is not finite is bad
    double busy[PHASES]; // seconds, of the step under way
    traffic sent_since;  // the last vote
    traffic counted;     // of all that the communicator has sent: up to here it is in sent_since, or left out
    double *sums;        // [weights + micro] host: squares of gradients, losses
    double began;        // when the step began, by comm_now
    action_time *times;  // [actions] of the last step
    step_vote *votes;    // [world]
} trainer;

// p was made with PART_TRAIN, batch sequences of seq_len tokens. Not collective.
err *trainer_open(part *p, comm *c, int64_t global_batch, trainer **out);
void trainer_close(trainer *t);
// rows: this rank's samples of the step, [global_batch/dp][seq_len+1] host token ids as a stream gives them
// (every tensor and pipeline rank of a data rank passes the same; NULL where part_takes_samples says no).
// step names the step in messages; update is 1 for the first update (Adam's bias correction counts updates,
// not steps that were skipped). Collective over all ranks. wanted: what this rank asks for.
err *train_step(trainer *t, int64_t step, int64_t update, const step_options *o, const int32_t *rows,
                unsigned wanted, step_report *out);
// The step up to the reduced gradients (still to be multiplied by trainer.grad_scale), without an update: for
// tests. Collective over all ranks.
err *train_gradients(trainer *t, const int32_t *rows, step_report *out);

#endif
