// One training step of one rank on paper: the step's own code, run on a device that computes nothing
// (cost.h) and a communicator that sends nothing. Needs no MPI, no weights and no memory to speak of, for any
// rank of any mesh. What it finds is exact: bytes, messages, operations are those of the step itself.
#ifndef SOLAR_TRACE_H
#define SOLAR_TRACE_H

#include "comm.h"
#include "cost.h"
#include "part.h"
#include "step.h"

typedef enum trace_what { TRACE_BUSY, TRACE_SEND, TRACE_RECEIVE, TRACE_WAIT, TRACE_TOGETHER } trace_what;

// What the rank does, in order. Operations between two other events are one TRACE_BUSY.
typedef struct trace_event {
    trace_what what;
    comm_kind kind;    // SEND, TOGETHER
    int peer, tag;     // SEND, RECEIVE: rank in the world
    uint32_t id;       // SEND, RECEIVE, WAIT: the transfer
    uint32_t messages; // TOGETHER: sent by this rank
    double amount;     // BUSY: seconds by the rate; SEND, TOGETHER: bytes sent by this rank
} trace_event;

// One forward or backward of the schedule. In a trace start and end count events: the action is
// event[start] .. event[end-1]. In a simulated or a measured step they are seconds.
typedef struct trace_action {
    action_kind kind;
    int micro, chunk; // chunk: which virtual stage of the rank
    double start, end;
} trace_action;

typedef struct trace {
    mesh m;
    int64_t parameters;        // elements this rank holds
    size_t bytes[MEM_CLASSES]; // of the arena
    size_t allocated;          // what the device was asked for
    size_t host;               // communication buffers in host memory
    size_t links;              // and in the device's, beside the arena; of `allocated`
    traffic sent[COMM_KINDS];  // in one step
    int64_t count[OP_KINDS];   // operations
    op_cost cost[OP_KINDS];    // their sums
    double seconds[OP_KINDS];  // by the rate
    trace_event *event;
    int events;
    trace_action *action;
    int actions;
} trace;

// Seconds that an operation takes; NULL: all take none.
typedef double (*trace_rate)(const void *machine, const op_cost *c);

typedef struct trace_input {
    const model_spec *spec;
    const depth_plan *plan;
    const layout *stages;
    const table *table;
    const mesh *m; // of the rank
    const part_shape *shape;
    int64_t global_batch;
    trace_rate rate;
    const void *machine; // passed to rate
    bool linked;         // device memory travels from GPU to GPU (comm_link)
} trace_input;

// Not collective. ERR_CONFIG as the step itself would say it. Free with trace_free.
err *trace_step(const trace_input *in, trace *out);
void trace_free(trace *t);

#endif
