// What a run will be on a machine, before it is: every place of the mesh traced (trace.h), the traces run
// against each other in time (simulate.h), and what follows for speed.
#ifndef SOLAR_PROJECT_H
#define SOLAR_PROJECT_H

#include <jansson.h>
#include <stdio.h>

#include "config.h"
#include "engine.h"
#include "simulate.h"

typedef struct projection {
    const config *c;
    const blueprint *b;
    machine machine;
    int world, stages, tensors;
    trace *t; // [stages*tensors] of data rank 0
    simulation sim;
    int64_t step_tokens;
    double flop_full, flop_causal; // a token, by 6N + 12 L h s and by 6N + 6 L h s; h = heads x head_dim
    double flop_done;              // a token, of the products and attention that the ranks do
    double formula_idle;           // (p-1)/(m v + p-1)
    double fullest;                // bytes of the rank that holds most
    double tokens_per_s, mfu_full, mfu_causal, days;
} projection;

// `tensors` is the mesh's tensor size, or 1 to let tensor rank 0 stand for all. ERR_CONFIG: the plan cannot
// be met. Free with projection_free.
err *project(const config *c, const blueprint *b, int world, int tensors, const machine *m, projection *out);
void projection_free(projection *p);
bool projection_fits(const projection *p); // every rank within the machine's memory

void projection_print(FILE *out, const projection *p);    // messages, work, times: after plan_print
void projection_timeline(FILE *out, const projection *p); // chart of one step
json_t *projection_json(const projection *p);             // everything, for programs

#endif
