// metrics.jsonl of a run: one JSON object a line, written by rank 0.
//   {"step", "loss", "lr", "grad_norm", "tokens", "samples", "seconds", "tokens_per_s"}   every step
//     and of what it achieved (measures.h): "tflops" of a rank and "mfu", both by 6N + 12 L h s a token (all
//     pairs of tokens, no recomputation), "mfu" only where the peak is known; "waiting": share of the step
//     that ranks waited for others, on average, only where the host sees it (not over links); "messages",
//     "bytes_sent" of all ranks from vote to vote; "device_bytes" in use on rank 0's GPU
//   {"step", "tokens", "valid": {name: loss}, "valid_loss", "base_valid_loss"}            an evaluation
//   {"step": 0, "base_valid": {name: loss}, "base_valid_loss"}                            the base model
//   {"step", "tokens", "recovered": true}                                                 recovery
//   {"step", "skipped": why, "first_sample", "last_sample"}                               a bad step
//   {"step", "seams": [..], "layers": [..]}                                               a report of layers
#ifndef SOLAR_METRICS_H
#define SOLAR_METRICS_H

#include <jansson.h>
#include <stdint.h>

#include "err.h"

typedef struct metrics metrics;

// Opens RUN/metrics.jsonl for appending; lines of steps after `step` (from a life that was killed before its
// next checkpoint) are dropped first.
err *metrics_open(const char *run_dir, int64_t step, metrics **out);
// Writes and frees the object, at once. A full disk is a warning, not an error: metrics are worth less than
// the run, and lines that could not be written are counted.
err *metrics_write(metrics *m, json_t *line);
void metrics_close(metrics *m);

#endif
