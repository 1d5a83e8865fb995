// What the files that send for a communicator share: comm*.c, reduce.c, link.c.
#ifndef SOLAR_COMM_EXCHANGE_H
#define SOLAR_COMM_EXCHANGE_H

#include "comm.h"

enum {
    COMM_SEGMENT = 1 << 20, // elements of a sum in one go through the host; comm.scratch holds three of them
    LINK_SEGMENT = 1 << 24, // and from GPU to GPU; comm.sums holds one
    ROW_ALIGN = 8,          // elements: rows of parts that are added begin at multiples of 16 bytes
};

err *comm_mpi_error(int rc, const char *what);
MPI_Datatype comm_mpi_type(dtype dt);
#define MPI_TRY(call, what)                                                                                  \
    do {                                                                                                     \
        int rc_ = (call);                                                                                    \
        if (rc_ != MPI_SUCCESS) FAIL_MPI(rc_, what);                                                         \
    } while (0)
#define FAIL_MPI(rc, what)                                                                                   \
    do {                                                                                                     \
        e = comm_mpi_error(rc, what);                                                                        \
        goto done;                                                                                           \
    } while (0)

// Messages of one exchange within a group: receives and sends posted one after the other, complete together.
typedef struct exchange {
    comm *c;
    const group *g;
    MPI_Request *request; // room for 2*size of them
    int count;
    comm_kind kind;
} exchange;
exchange exchange_make(comm *c, const group *g, comm_kind kind, MPI_Request *request);
err *exchange_begin(exchange *x); // one at a time with the same requests
err *exchange_post(exchange *x, bool send, int peer, void *buf, int64_t n, dtype dt);
// All is posted: over links it is now queued, and done for what is queued next; else it is under way.
err *exchange_posted(exchange *x);
// The same, and waits for what is under way.
err *exchange_end(exchange *x, const char *what);
// Whether buffers are used where they lie: no copy on the host is needed.
bool comm_direct(const comm *c);

// *done: are all of them complete?
err *comm_test(MPI_Request *r, int n, const char *what, bool *done);
// Polls until all are done, or until this rank or another has waited too long.
err *comm_wait(comm *c, MPI_Request *r, int n, const char *what);

// Has this rank, after so many seconds in `what`, or another waited too long? Then the error that names who
// is missing; to be asked now and then.
err *comm_impatient(comm *c, const char *what, double waited);
// Polls until f says done, or until somebody has waited too long.
typedef err *(*comm_poll)(comm *c, void *who, bool *done);
err *comm_poll_until(comm *c, comm_poll f, void *who, const char *what);
void stages_close(comm *c);
// Sends what has come to the host.
err *stages_advance(comm *c);

void comm_count(comm *c, comm_kind k, uint64_t messages, uint64_t bytes);
// Tells the listener what was counted of a kind since `before`.
void comm_tell_together(comm *c, const group *g, comm_kind k, traffic before);

// sum = x, or sum += x, in fp32; to = sum rounded to dt.
void comm_add_row(float *sum, const char *x, dtype dt, int64_t n, bool first);
void comm_store_row(char *to, dtype dt, const float *sum, int64_t n);

#endif
