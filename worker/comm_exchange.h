// What the files that send for a communicator share: comm.c, comm_parts.c, reduce.c.
#ifndef SOLAR_COMM_EXCHANGE_H
#define SOLAR_COMM_EXCHANGE_H

#include "comm.h"

enum { COMM_SEGMENT = 1 << 20 }; // elements of a sum in one go; comm.scratch holds three of them

err *comm_mpi_error(int rc, const char *what);
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

// Messages of one exchange within a group: receives and sends posted one after the other, waited for
// together.
typedef struct exchange {
    MPI_Request *request; // room for 2*size of them
    int count;
    comm_kind kind;
} exchange;
exchange exchange_begin(comm *c, comm_kind kind); // one at a time
err *exchange_post(comm *c, const group *g, exchange *x, bool send, int peer, void *buf, int64_t n, dtype dt);

// *done: are all of them complete?
err *comm_test(MPI_Request *r, int n, const char *what, bool *done);
// Polls until all are done, or until this rank or another has waited too long.
err *comm_wait(comm *c, MPI_Request *r, int n, const char *what);

void comm_count(comm *c, comm_kind k, uint64_t messages, uint64_t bytes);
// Tells the listener what was counted of a kind since `before`.
void comm_tell_together(comm *c, const group *g, comm_kind k, traffic before);

// sum = x, or sum += x, in fp32; to = sum rounded to dt.
void comm_add_row(float *sum, const char *x, dtype dt, int64_t n, bool first);
void comm_store_row(char *to, dtype dt, const float *sum, int64_t n);

#endif
