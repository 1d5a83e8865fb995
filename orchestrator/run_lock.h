// One run directory, one run: two that write the same checkpoints would spoil both.
#ifndef SOLAR_RUN_LOCK_H
#define SOLAR_RUN_LOCK_H

#include <stdbool.h>

#include "err.h"

typedef struct run_lock {
    int fd; // 0: not held
} run_lock;

// Holds DIR/lock (made if missing) until it is released or the process ends, however it ends. A former life
// that is just ending is waited for, a few seconds. Held by another process: ERR_RUNTIME naming its host and
// process, unless that is a former life of the same Slurm job, which is taken over with a warning, or
// take_over says so. Where the file system knows no locks there is a warning, and no lock. What keeps two
// lives from publishing is not this lock but worker/life.h; the lock tells a mistake early. Not collective:
// rank 0 calls it.
err *run_lock_take(const char *dir, bool take_over, run_lock *out);
void run_lock_release(run_lock *l);

#endif
