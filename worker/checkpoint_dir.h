// The directory of checkpoints of a run: names, publication, retention. One rank calls these; not collective.
#ifndef SOLAR_CHECKPOINT_DIR_H
#define SOLAR_CHECKPOINT_DIR_H

#include <stdint.h>

#include "err.h"

// RUN/checkpoints/PREFIX00000010; caller frees.
char *checkpoint_path(const char *run_dir, const char *prefix, int64_t step);
// Renames temp to final, then moves RUN/latest to it; fsyncs both directories.
err *checkpoint_publish(const char *run_dir, const char *temp, const char *final);
// Moves RUN/latest to a checkpoint, unless it is there.
err *checkpoint_point(const char *run_dir, const char *final);
// Steps of the published checkpoints, newest first; caller frees. 0 when there are none.
err *checkpoint_list(const char *run_dir, int64_t **steps, int *count);
// Removes all but the newest `keep` checkpoints (0: removes nothing). Failures are warnings.
void checkpoint_retain(const char *run_dir, int64_t keep);
// Moves a damaged checkpoint aside.
err *checkpoint_set_aside(const char *run_dir, int64_t step);

#endif
