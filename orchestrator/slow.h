// Which rank keeps the others waiting: from the times that all ranks tell with their votes, at no cost to the
// step.
#ifndef SOLAR_SLOW_H
#define SOLAR_SLOW_H

#include "../worker/step.h"

typedef struct slow_watch {
    int world, steps;
    double (*busy)[PHASES]; // [world] seconds since the last report
} slow_watch;

err *slow_open(int world, slow_watch *out);
void slow_close(slow_watch *w);
void slow_note(slow_watch *w, const step_vote *votes);

typedef struct slow_rank {
    int rank;               // -1: nobody is slow
    step_phase phase;       // in which it loses most
    double seconds, median; // of the phase, a step; its own, and its peers'
    double times;           // all phases but waiting for samples: its own over the peers' median
} slow_rank;
// The slowest of the ranks that worked more than `factor` times as long as the median of their peers, which
// are the other ranks of the same pipeline stage; without such, nobody can be compared. Forgets what was
// noted.
slow_rank slow_find(slow_watch *w, const mesh *m, double factor);

#endif
