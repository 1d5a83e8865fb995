// A step in time: the traces of the ranks of a mesh, run against each other on a machine. Operations take
// what the trace says, messages travel, receivers wait for what was sent, collectives begin with their last
// rank and end for all at once.
#ifndef SOLAR_SIMULATE_H
#define SOLAR_SIMULATE_H

#include "../worker/trace.h"
#include "machine.h"

typedef struct rank_time {                            // seconds of one rank
    double compute, together, tensor, waiting, total; // tensor: the part of together over tensor ranks
    double idle; // share of the pipeline's part of the step, from the first action of any rank to the last,
                 // in which this rank neither computes nor takes part in a collective
} rank_time;

typedef struct simulation {
    int ranks;             // as many as traces
    rank_time *rank;       // [ranks]
    trace_action **action; // [ranks][actions of its trace], in seconds from the start of the step
    double step;           // seconds
    double idle;           // mean of the ranks'
    double pipeline;       // seconds of the pipeline's part
    double data;           // seconds of collectives over data ranks, of the rank that has most
} simulation;

// One trace of a rank of data rank 0 for every (stage, tensor rank), at t[p*tensors + tensor]; tensors is tp,
// or 1 when tensor rank 0 stands for all. ERR_RUNTIME: ranks wait for what nobody sends. Free with
// simulation_free.
err *simulate(const trace *t, int stages, int tensors, int64_t kv_heads, const machine *m, simulation *out);
void simulation_free(simulation *s);

#endif
