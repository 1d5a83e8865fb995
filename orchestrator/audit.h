// What a run was really trained on, held against what it should have been: every step left a digest of its
// samples in metrics.jsonl.
#ifndef SOLAR_AUDIT_H
#define SOLAR_AUDIT_H

#include "err.h"

// Reads the samples of every step that RUN/metrics.jsonl tells of from the token files of RUN/config.yaml, in
// the order of that config, and compares digests. Prints what it found. ERR_MISMATCH: a step was trained
// on others, or a step or a sample is missing from the record or stands there twice. Not collective.
err *audit_run(const char *run_dir);

#endif
