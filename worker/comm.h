// Communication between the ranks of a mesh, over MPI.
//
// Every wait is a polled loop with a time limit, so that a dead or stuck peer ends as an ERR_PEER that names
// it, the phase and the step (roll_call.h), and never as a hang. Sums are formed in rank order, element by
// element, in fp32 (rounded once when the data is bf16): the same mesh gives the same bits, all ranks of a
// group hold the same bits, and neither depends on how the data was cut. Buffers are device memory. Where
// that is not the host's memory there are two transports, with the same sums and the same bits: through the
// host (MPI), or linked from GPU to GPU (comm_link: NCCL), where everything is queued on the device and
// nothing waits for it. Host data always travels over MPI. One thread of a rank communicates.
#ifndef SOLAR_COMM_H
#define SOLAR_COMM_H

#include <mpi.h>
#include <stdint.h>

#include "mesh.h"
#include "ops.h"

// What is sent, and between whom: everything that leaves a rank is counted under one of these.
typedef enum comm_kind {
    COMM_TENSOR_SUM, // sums, gathers and scatters of a group are three kinds in this order
    COMM_TENSOR_GATHER,
    COMM_TENSOR_SCATTER,
    COMM_DATA_SUM,
    COMM_DATA_GATHER,
    COMM_DATA_SCATTER,
    COMM_KV_SUM,
    COMM_KV_GATHER,
    COMM_KV_SCATTER,
    COMM_TIED_SUM,
    COMM_TIED_GATHER,
    COMM_TIED_SCATTER,
    COMM_FORWARD,  // activations to the next pipeline stage
    COMM_BACKWARD, // their gradients to the one before
    COMM_CONTROL,  // small agreements of all ranks
    COMM_HOST,     // tensors on their way to files, logits
    COMM_KINDS,
} comm_kind;
const char *comm_kind_name(comm_kind k); // "tensor sum", ...

typedef struct traffic {
    uint64_t messages, bytes;
} traffic;

typedef struct ncclComm gpu_link;

typedef struct group {
    gpu_link *link; // between the GPUs of the group; NULL: over MPI
    MPI_Comm comm;  // MPI_COMM_NULL when this rank is not in such a group, or when nothing is sent
    int size, rank;
    comm_kind sum; // kind of its sums; the next two are those of its gathers and scatters
} group;

// A communicator of a plan sends nothing. It counts what it would send and tells a listener, in order.
typedef enum comm_act { COMM_ACT_SEND, COMM_ACT_RECEIVE, COMM_ACT_WAIT, COMM_ACT_TOGETHER } comm_act;
typedef struct comm_event {
    comm_act act;
    comm_kind kind;
    const group *g; // TOGETHER: all ranks of it take part and end together
    int peer, tag;  // SEND, RECEIVE
    uint64_t id;    // SEND, RECEIVE: a number for the transfer, from 1; WAIT: the one waited for
    traffic sent;   // by this rank; RECEIVE: to it
} comm_event;
typedef struct stage stage; // what a message of device memory needs on its way (comm_message.c)
typedef struct comm_listener comm_listener;
struct comm_listener {
    void (*hear)(comm_listener *self, const comm_event *e);
    double (*now)(comm_listener *self);
};

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
    const char
        *reports; // directory in which this rank writes what it waits for when a job is stuck; NULL: nowhere
    bool (*ending)(void); // whether something from outside ends this process; NULL: nothing does
    bool reported;
    double waited; // seconds spent waiting for others since opened
    char host[64];
    char (*hosts)[64];        // [world]
    char *scratch;            // host memory for sums and staging, pinned
    bool linked;              // from GPU to GPU; of a plan: as if it were
    int64_t segment;          // elements of a sum in one go
    char *sums;               // linked: device memory for [segment] fp32
    gpu_link *channel[4];     // linked: to and from pipeline neighbours, from QUEUE_FORWARD_OUT on
    bool aborted;             // links were torn down after an error
    stage *stages;            // list of all
    uint64_t posted;          // sends of device memory so far
    MPI_Request *request;     // of one exchange within a group
    traffic sent[COMM_KINDS]; // by this rank since opened
    comm_listener *listener;  // NULL: a real one
    uint64_t transfers;       // numbered so far, with a listener
    // What may be done while waiting for others (a reduction under way); NULL: nothing.
    void (*idle)(void *who);
    void *who;
} comm;

// Splits MPI_COMM_WORLD (already initialised) by the mesh. Collective over all ranks.
// kv_heads: of the model; tied: the model shares embedding and head.
err *comm_open(const mesh *m, device *dev, int64_t kv_heads, bool tied, double limit, comm **out);
// One that sends nothing, of any rank of any mesh: needs no MPI. What every function below would send is
// counted and told to the listener; sums, gathers and receives leave the data as it is. Not collective.
err *comm_open_plan(const mesh *m, device *dev, int64_t kv_heads, bool tied, comm_listener *l, comm **out);
void comm_close(comm *c); // collective, unless it sends nothing
// From here on the device's memory travels from GPU to GPU (link.h). Every rank has a GPU of its own. Of a
// communicator of a plan: it counts as if. Collective over all ranks.
err *comm_link(comm *c);
// Takes what messages of up to `bytes` need, `count` of them on their way at a time, so that none of them
// allocates. Not collective.
err *comm_reserve(comm *c, int count, size_t bytes);
// Seconds of a clock that only goes forward; with a listener, its own time.
double comm_now(const comm *c);
size_t comm_scratch_bytes(void);      // of host memory
size_t comm_link_scratch_bytes(void); // of the device's memory, when linked

// In place: buf = sum over the group, n elements of dt. Collective over the group; at once for size 1.
err *comm_sum(comm *c, const group *g, dtype dt, void *buf, int64_t n);
// Data of units*unit elements dealt out to a group: rank r has units*r/size*unit .. units*(r+1)/size*unit-1.
// mine = sum over the group of everyone's `all`, this rank's part of it. Collective over the group.
err *comm_scatter_sum(comm *c, const group *g, dtype dt, const void *all, void *mine, int64_t units,
                      int64_t unit);
// Everyone's part, each at its place in `all`, to all. Collective over the group.
err *comm_gather_parts(comm *c, const group *g, dtype dt, void *all, int64_t units, int64_t unit);
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
// Messages of one kind between two ranks arrive in the order in which they were sent.
typedef struct transfer {
    MPI_Request request; // MPI_REQUEST_NULL: nothing under way
    stage *stage;        // of device memory; NULL: none under way
    uint64_t id;         // with a listener: not 0 while under way
} transfer;
#define TRANSFER_NONE ((transfer){.request = MPI_REQUEST_NULL})
// kind: COMM_FORWARD, to the next pipeline rank, or COMM_BACKWARD, to the one before. The buffer is sent as
// work queued so far leaves it; it must not be written before comm_finish.
err *comm_send(comm *c, comm_kind kind, int peer, int tag, dtype dt, const void *buf, int64_t n, transfer *t);
// Work queued so far may still use buf; what comes later must wait for comm_finish.
err *comm_receive(comm *c, comm_kind kind, int peer, int tag, dtype dt, void *buf, int64_t n, transfer *t);
// Completes it for work that is queued from here on; a transfer that is not under way is complete.
err *comm_finish(comm *c, transfer *t);

// Host-to-host messages for checkpoints: blocking, with the same time limit.
err *comm_put(comm *c, int peer, int tag, const void *data, size_t bytes);
err *comm_take(comm *c, int peer, int tag, void *data, size_t bytes);

#endif
