// Where a run stands, out of its directory alone: config.yaml, metrics.jsonl, lives.jsonl, checkpoints,
// latest.
#ifndef SOLAR_STATUS_H
#define SOLAR_STATUS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"

typedef enum run_phase { RUN_EMPTY, RUN_GOING, RUN_DONE, RUN_STOPPED, RUN_FAILED, RUN_KILLED } run_phase;

typedef struct run_status {
    run_phase phase;
    int64_t step, steps;                      // steps: of the config, 0 when there is no config.yaml
    int64_t tokens, all_tokens;               // trained on; of the whole run
    double loss, valid_loss, base_valid_loss; // the last of each; NaN: none
    double step_seconds;                      // median of the last steps; NaN: none
    double tokens_per_s;                      // the same
    int64_t recovered_step;                   // -1: not yet
    int64_t checkpoint;                       // step of the newest; -1: none
    double checkpoint_time;                   // seconds since 1970
    int64_t lives;                            // lives of the program
    int64_t idle;   // lives of the job since the newest checkpoint moved, this one included
    json_t *events; // lives.jsonl
} run_status;

// ERR_INPUT: not a directory, or nothing of a run in it. Reads only; another process may be writing.
err *status_read(const char *run_dir, run_status *out);
void status_free(run_status *s);
const char *status_phase(run_phase p); // "running", "done", ...
// Nodes that this run stays away from, and why: those that a preflight found unfit, or that died twice, since
// the last {"event": "fit", "node"}. An object of node: reason; caller frees.
json_t *status_left_out(const run_status *s);
// One object a life, oldest first: {"life", "begin", "first_step", "end", "from", "to", "code", "why",
// "nodes"}; times in seconds since 1970; what is not known is missing. Caller frees.
json_t *status_lives(const run_status *s);

#endif
