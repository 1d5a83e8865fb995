// RUN/lives.jsonl: what happened to a run, one JSON object a line, only ever appended to.
//   by rank 0 of every life of the program ("life" counts from 1):
//   {"event": "begin", "life", "time", "step", "tokens", "ranks", "host", "process", "job", "restart",
//   "nodes"}
//   {"event": "step", "life", "time", "step"}                           its first step is done
//   {"event": "save", "life", "time", "step"}                           a checkpoint was published
//   {"event": "end", "life", "time", "step", "tokens", "code", "why"}   a life that was killed has none
//   by the job around the program (solar status RUN --note):
//   {"event": "job", "time", "job", "restart", "nodes", "checkpoint"}   before anything else of a life
//   {"event": "exit", "time", "job", "restart", "code"}
//   {"event": "death" | "unfit", "time", "job", "node", "why"}          a node's fault
// "time" is in seconds since 1970; job, restart and nodes are Slurm's, where there is Slurm; "checkpoint" is
// the step of the newest checkpoint, 0 without one.
#ifndef SOLAR_LIVES_H
#define SOLAR_LIVES_H

#include <jansson.h>
#include <stdint.h>

#include "err.h"

typedef struct lives {
    char *run_dir; // NULL: not open; then the calls below do nothing
    int64_t life;
} lives;

// Counts the lives before and writes the "begin" of this one. What cannot be written is a warning: a run is
// worth more than its diary. Rank 0 calls these; the run directory must be this run's alone.
void lives_begin(const char *run_dir, int64_t step, int64_t tokens, int ranks, lives *out);
void lives_step(const lives *l, int64_t step);
void lives_save(const lives *l, int64_t step);
// Writes the "end" and closes. `e` is why the life ends; NULL: the run is done.
void lives_end(lives *l, int64_t step, int64_t tokens, const err *e);

// Appends one event with its time and, where there are any, Slurm's job, restart and nodes. Takes `event`
// over.
err *lives_append(const char *run_dir, json_t *event);
// All whole lines of the file as an array; empty when there is none. Lines cut by a crash are left out.
err *lives_read(const char *run_dir, json_t **out);

#endif
