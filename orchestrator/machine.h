// What a plan has to know of a machine to estimate times: a few figures of one rank, as data in a file
// (slurm/machines.yaml says what each means, in which unit, and where it comes from).
#ifndef SOLAR_MACHINE_H
#define SOLAR_MACHINE_H

#include "../worker/comm.h"
#include "cost.h"

typedef struct machine {
    char name[32];
    double memory;
    double peak[2]; // by dtype
    double product, attention, bandwidth, stream, launch;
    double node; // ranks of a host
    double link, link_latency, network, network_latency;
} machine;

// file NULL: slurm/machines.yaml of this program. Unknown name or key, a figure missing or out of range:
// ERR_CONFIG. Not collective.
err *machine_load(const char *file, const char *name, machine *out);

// Seconds of one operation: arithmetic or memory, whichever takes longer, and its launch. `of` is a machine:
// the trace_rate of a trace.
double machine_seconds(const void *of, const op_cost *c);
// Seconds of a message from rank to rank until it is there, and until the sender can send the next.
double machine_message(const machine *m, int from, int to, double bytes, double *next);
// Seconds of a collective of the ranks of `kind`'s group around the rank at `at`, who sends `bytes` in it.
double machine_together(const machine *m, const mesh *at, int64_t kv_heads, comm_kind kind, double bytes);

#endif
