// The directory of checkpoints of a run: names, publication, retention. One rank calls these; not collective.
#ifndef SOLAR_CHECKPOINT_DIR_H
#define SOLAR_CHECKPOINT_DIR_H

#include <stdint.h>

#include "err.h"

typedef struct retention { // a checkpoint stays when any of these wants it
    int64_t keep;          // the newest so many; 0: all
    int64_t every;         // those of steps divisible by this; 0: none
    int64_t best;          // so many of the lowest validation loss; 0: none
} retention;

// RUN/checkpoints/PREFIX00000010; caller frees.
char *checkpoint_path(const char *run_dir, const char *prefix, int64_t step);
// Renames temp, which lies in the life's directory, to final, then moves RUN/latest to it; syncs both
// directories. Fails when the life is over.
err *checkpoint_publish(const char *run_dir, const char *life, const char *temp, const char *final);
// Moves RUN/latest to a checkpoint, unless it is there.
err *checkpoint_point(const char *run_dir, const char *life, const char *final);
// Steps of the published checkpoints, newest first; caller frees. 0 when there are none.
err *checkpoint_list(const char *run_dir, int64_t **steps, int *count);
// Removes the checkpoints that nothing wants; never the one that `latest` points to. Each leaves the list by
// one rename into the life's directory before it is taken apart. Failures are warnings.
void checkpoint_retain(const char *run_dir, const char *life, const retention *r);
// Moves a damaged checkpoint aside.
err *checkpoint_set_aside(const char *run_dir, int64_t step);

#endif
