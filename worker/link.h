// Links between GPUs: NCCL, for a communicator whose ranks have a GPU each (comm_link). What is posted is
// queued on the device's current queue and done in its order; no call waits for the device. In a build
// without NCCL links_open says so, and nothing else here is called.
//
// Only data is moved, by messages: sums are added by the device in rank order (sum_rows), so they have the
// bits that comm.h promises, whatever algorithm the library would choose for the machine.
#ifndef SOLAR_LINK_H
#define SOLAR_LINK_H

#include "comm.h"

// Version of the library, as "2.27.3"; NULL in a build without it. Not collective.
const char *links_version(char out[32]);
// Makes the links of all groups and of the neighbours in the pipeline, and has the device watched while the
// host waits for it: peers that are dead, late or broken end the wait as ERR_PEER. Collective over all ranks.
err *links_open(comm *c);
// Tears them down so that work on the device that waits for a peer ends. Not collective.
void links_abort(comm *c);
void links_close(comm *c); // collective, unless they were torn down

// One group of messages of one link: begin, post each, end; then it is queued. Counts are elements.
err *link_begin(const comm *c);
err *link_post(comm *c, gpu_link *l, bool send, int peer, void *buf, int64_t n, dtype dt);
err *link_end(comm *c, gpu_link *l);
// all[size, n] from everyone's mine[n].
err *link_gather(comm *c, gpu_link *l, const void *mine, void *all, int64_t n, dtype dt);

#endif
