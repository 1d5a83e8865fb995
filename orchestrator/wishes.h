// What asks a run to save or to stop from outside: signals, files in its directory, the clock.
#ifndef SOLAR_WISHES_H
#define SOLAR_WISHES_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "err.h"

// SIGTERM, SIGINT, SIGUSR1: save at the next step boundary and end with exit status 75. SIGUSR2: save and go
// on. From now on they set flags; any number of them, at any time, on any rank.
void wishes_catch_signals(void);
bool wishes_signalled(void); // asked to stop

typedef struct wishes {
    const config *c;
    bool watches; // this rank looks at files and the clock: rank 0
    const char *life;
    double deadline;                          // seconds since 1970; NaN: none
    double looked, life_looked, saved, retry; // on the monotonic clock; retry 0: nothing to try again
    double boundary;                          // when the last step boundary was
    double step[16];                          // seconds between the last boundaries
    int64_t steps;
    double save;         // longest seconds that a checkpoint took
    const char *why;     // rank 0: what asked for the stop
    uint64_t save_bytes; // of a checkpoint; to guess with before the first
} wishes;

// life: this life's directory. Not collective.
void wishes_open(const config *c, const char *life, bool watches, uint64_t save_bytes, wishes *w);
// At each step boundary: bits of WANT_STOP and WANT_SAVE. ERR_RUNTIME on rank 0: the run was taken over.
// Allocates nothing but in errors. Not collective.
err *wishes_ask(wishes *w, unsigned *wanted);
void wishes_saved(wishes *w, double seconds); // one was published; seconds from its beginning on
void wishes_failed(wishes *w);                // one came to nothing: ask for another in a minute
// The stop was obeyed, the wish for a checkpoint met: their files go.
void wishes_drop(const wishes *w, unsigned met);

#endif
