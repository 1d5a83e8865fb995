// A grid of runs over base models, m, seeds and baselines, all of one config: planned, run cell by cell,
// reported.
#ifndef SOLAR_SWEEP_H
#define SOLAR_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "err.h"

typedef struct sweep_base {
    char *name, *model;
    char *layers;   // of the model, that the base consists of; NULL: all
    int64_t tokens; // the base is trained on so many first; 0: it is taken as it is
} sweep_base;

typedef enum cell_kind {
    CELL_PRETRAIN,
    CELL_BASE,
    CELL_DUS,
    CELL_RANDOM,
    CELL_INSERT,
    CELL_LAYERS
} cell_kind;
typedef enum equal_kind { EQUAL_TOKENS, EQUAL_FLOP } equal_kind;

typedef struct cell {
    char *name, *dir; // of the run
    cell_kind kind;
    equal_kind equal;
    int base;     // index
    int n;        // layers of the base
    int64_t m;    // DUS, RANDOM, INSERT: of the plan of that depth; else -1
    char *layers; // donors in the model that is read
    int depth;
    int64_t seed, ranks, steps, global_batch;
    int64_t tokens; // trained on
    int64_t parameters;
    double flop;   // a token: 6N + 12 L h s
    int waits_for; // index of the cell that makes its base; -1: none
} cell;

typedef struct sweep {
    char *file, *dir, *config_path;
    config *config;
    sweep_base *base;
    int n_base;
    int64_t *m, *seed, *ranks;
    int n_m, n_seed, n_ranks;
    char **layers;
    int n_layers;
    bool with_base, with_random, with_insert, equal[2], weak;
    bool with_ranks; // the file says on how many; else it is for who starts the cells to say
    int64_t tokens;
    cell *cell;
    int cells;
} sweep;

// Reads the file and plans its cells. ERR_CONFIG names file, line and column, or the cell that cannot be.
err *sweep_open(const char *path, sweep *out);
void sweep_free(sweep *s);

// sweep_plan.c
err *sweep_plan(sweep *s);
const char *cell_kind_name(const cell *c, char out[32]);                  // "m=1", "random m=1", "base", ...
const char *cell_ranks_text(const sweep *s, const cell *c, char out[24]); // "-": the file does not say
// The arguments of `solar train` for a cell, NULL-terminated; caller frees each and the array.
err *cell_arguments(const sweep *s, const cell *c, char ***out);
bool cell_done(const cell *c);
bool cell_ready(const sweep *s, const cell *c); // its base is there

// sweep_local.c: all cells that are not done on this machine, `jobs` at once. ERR_MISMATCH: some failed; the
// others are done.
err *sweep_local(const sweep *s, const char *program, int jobs);

// sweep_report.c: the table to stdout, DIR/report.md, DIR/report.tsv and, with gnuplot, DIR/*.svg.
err *sweep_report(const sweep *s);

#endif
