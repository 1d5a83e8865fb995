// Which mesh to run on: every legal one that fits the machine's memory, by the time a step would take.
#ifndef SOLAR_RECOMMEND_H
#define SOLAR_RECOMMEND_H

#include <stdio.h>

#include "config.h"
#include "engine.h"
#include "machine.h"

typedef struct candidate {
    int pp, tp, interleave;
    int64_t micro_batch;
    recompute_kind recompute;               // the least that fits
    double bytes;                           // of the fullest rank
    double step;                            // seconds; mean over ranks of its parts:
    double compute, tensor, other, waiting; // operations, tensor collectives, other collectives, the rest
} candidate;

typedef struct recommendation {
    int world;
    machine machine;
    candidate *best; // [count] quickest first
    int count;
    int legal, too_large; // pipeline x tensor x micro-batch x interleave: tried, and those that do not fit
    double least_bytes;   // of the fullest rank, in the leanest of what was tried
} recommendation;

// Tries pipelines, tensor sizes within a host, micro-batches within train.global_batch, interleaving and
// recomputation, as far as the config leaves them at their defaults; everything else is as the config says.
// ERR_CONFIG: no mesh is legal, or none fits. Free with recommendation_free. Not collective.
err *recommend(const config *c, int world, const machine *m, recommendation *out);
void recommendation_free(recommendation *r);
// The best few, what bounds them, and why the others take longer.
void recommendation_print(FILE *out, const recommendation *r);
// Puts the best into the config; mesh.auto is off then.
void recommendation_apply(const recommendation *r, config *c);
// A run's choice, when its config leaves it to mesh.auto: what RUN/config.yaml says an earlier life had, if
// that is legal for `world` ranks, else the best. Says which. ERR_CONFIG also when mesh.machine is missing
// and train.device is not cpu.
err *recommend_for_run(config *c, int world);

#endif
