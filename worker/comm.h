// Communication between the ranks of a mesh, over MPI.
//
// Every wait is a polled loop with a time limit, so that a dead or stuck peer ends as an ERR_PEER that names
// it, the phase and the step (roll_call.h), and never as a hang. Sums are formed in rank order, element by
// element, in fp32 (rounded once when the data is bf16): the same mesh gives the same bits, all ranks of a
// group hold the same bits, and neither depends on how the data was cut. Buffers are device memory; when the
// device's memory is not the host's they are staged through the host. One thread of a rank communicates.
#ifndef SOLAR_COMM_H
#define SOLAR_COMM_H

#include <mpi.h>
#include <stdint.h>

#include "mesh.h"
#include "ops.h"

typedef struct group {
    MPI_Comm comm; // MPI_COMM_NULL when this rank is not in such a group
    int size, rank;
} group;

typedef struct comm {
    mesh m;
    device *dev;
    group world;
    group tp;     // same data and pipeline place
    group dp;     // same pipeline and tensor place
    group kv;     // tensor ranks that hold the same kv heads (size 1 unless tp > kv heads)
    group tied;   // first and last stage of one pipeline, when they share the embedding; else null
    double limit; // seconds a wait may last; 0: for ever
    const char *phase;
    int64_t step;
    double waited; // seconds spent waiting for others since opened
    char host[64];
    char (*hosts)[64];        // [world]
    char *scratch;            // host memory for sums and staging
    uint64_t messages, bytes; // sent by this rank since opened
} comm;

// Splits MPI_COMM_WORLD (already initialised) by the mesh. Collective over all ranks.
// kv_heads: of the model; tied: the model shares embedding and head.
err *comm_open(const mesh *m, device *dev, int64_t kv_heads, bool tied, double limit, comm **out);
void comm_close(comm *c); // collective
size_t comm_scratch_bytes(void);

// In place: buf = sum over the group, n elements of dt. Collective over the group; at once for size 1.
err *comm_sum(comm *c, const group *g, dtype dt, void *buf, int64_t n);
// out[size, n] in rank order from everyone's in[n] (fp32, device memory). Collective over the group.
err *comm_gather(comm *c, const group *g, const float *in, float *out, int64_t n);
// Host data, all ranks of the group get `bytes` bytes of root's. Collective over the group.
err *comm_broadcast(comm *c, const group *g, void *data, size_t bytes, int root);
// Host data: sum in rank order over the world of n doubles, n <= 64. Collective over all ranks.
err *comm_sum_world(comm *c, double *values, int n);
// Host data: everyone's bytes to `all` [world][bytes] on every rank. Collective over all ranks.
err *comm_collect(comm *c, const void *mine, void *all, size_t bytes);
err *comm_barrier(comm *c);
// Every rank passes its own success or failure (taken over); all return the failure of the lowest rank that
// has one, with that rank's number and host, or NULL. Collective over all ranks.
err *comm_agree(comm *c, err *mine);

// A message on its way. Matching send and receive name each other's rank and the same tag; n elements of dt.
typedef struct transfer {
    MPI_Request request; // MPI_REQUEST_NULL: nothing under way
    void *staged;        // host copy, when the device's memory is not the host's
    void *target;        // device buffer of a receive
    size_t bytes;
} transfer;
#define TRANSFER_NONE ((transfer){.request = MPI_REQUEST_NULL})
err *comm_send(comm *c, int peer, int tag, dtype dt, const void *buf, int64_t n, transfer *t);
err *comm_receive(comm *c, int peer, int tag, dtype dt, void *buf, int64_t n, transfer *t);
// Completes it; a transfer that is not under way is complete.
err *comm_finish(comm *c, transfer *t);

// Host-to-host messages for checkpoints: blocking, with the same time limit.
err *comm_put(comm *c, int peer, int tag, const void *data, size_t bytes);
err *comm_take(comm *c, int peer, int tag, void *data, size_t bytes);

#endif
