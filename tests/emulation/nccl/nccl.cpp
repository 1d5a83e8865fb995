// NCCL for the machine of emulate.cpp: what is queued on a stream travels as MPI messages between the
// processes, which take the place of GPUs. Like the real one it is strict about order: a send is not over
// before the other side has begun to receive it, a group is over when all of it is, a stream stands still
// meanwhile, and messages of a link match in the order in which they were queued. It is stricter about use:
// counts that do not match, calls on a link that is not ready and groups of more than one link end the
// program.
//
// A GPU works on while its host waits in MPI; here MPI_Test, which every wait of the program polls, carries
// streams on.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mpi.h>
#include <vector>

#include "../streams.h"
#include "nccl.h"

struct ncclComm {
    int size, rank, tag;
    std::vector<int> peers; // ranks in the world
    int maker;              // rank in the world of who made the id
    MPI_Request hello = MPI_REQUEST_NULL, table = MPI_REQUEST_NULL;
    bool ready = false, aborted = false;
    ncclResult_t busy = ncclSuccess; // of the last group: it is said to be under way for a while
    int left = 0;                    // groups queued and not over
};

namespace {

constexpr int HELLO = 1 << 16, TABLE = 1 << 17, MESSAGES = 1 << 18; // and a link's own number

[[noreturn]] void broken(const char *what) {
    std::fprintf(stderr, "emulated NCCL: %s\n", what);
    std::abort();
}

struct message {
    bool send;
    char *buf;
    size_t bytes;
    int peer;
    MPI_Request request = MPI_REQUEST_NULL;
    bool over = false;
};

struct group {
    ncclComm_t comm = nullptr;
    cudaStream_t stream = nullptr;
    std::vector<message> messages;
    bool begun = false;
};

int depth = 0;
std::unique_ptr<group> open_group;

size_t size_of(ncclDataType_t t) { return t == ncclFloat32 ? 4 : 2; }

void begin(group &g) {
    for (message &m : g.messages) {
        int peer = g.comm->peers[m.peer], tag = MESSAGES + g.comm->tag;
        if (m.send)
            PMPI_Issend(m.buf, static_cast<int>(m.bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD, &m.request);
        else
            PMPI_Irecv(m.buf, static_cast<int>(m.bytes), MPI_BYTE, peer, tag, MPI_COMM_WORLD, &m.request);
    }
    g.begun = true;
}

// Done when all of its messages are.
bool work_on(group &g) {
    bool over = true;
    if (g.comm->aborted) return true;
    if (!g.begun) begin(g);
    for (message &m : g.messages) {
        int flag = 0, count = 0;
        MPI_Status status;
        if (m.over) continue;
        PMPI_Test(&m.request, &flag, &status);
        if (flag && !m.send) PMPI_Get_count(&status, MPI_BYTE, &count);
        if (flag && !m.send && static_cast<size_t>(count) != m.bytes)
            broken("a message of another size than expected");
        m.over = flag;
        over &= m.over;
    }
    if (over) g.comm->left--;
    return over;
}

ncclResult_t add(bool send, void *buf, size_t bytes, int peer, ncclComm_t c, cudaStream_t s) {
    if (!depth) broken("a message outside of a group");
    if (!c->ready || c->busy != ncclSuccess) broken("a call on a link that is not ready");
    if (peer < 0 || peer >= c->size || peer == c->rank) return ncclInvalidArgument;
    if (!open_group) open_group.reset(new group{c, s, {}, false});
    if (open_group->comm != c || open_group->stream != s) broken("a group of two links or streams");
    open_group->messages.push_back({send, static_cast<char *>(buf), bytes, peer});
    return ncclSuccess;
}

} // namespace

extern "C" int MPI_Test(MPI_Request *r, int *flag, MPI_Status *status) {
    static unsigned polls;
    if (++polls % 16 == 0) emulated_progress();
    return PMPI_Test(r, flag, status);
}

ncclResult_t ncclGetVersion(int *version) {
    *version = 22800;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t r) {
    return r == ncclRemoteError ? "remote error" : "emulated error";
}
const char *ncclGetLastError(ncclComm_t) { return ""; }

// Who makes an id counts its own; with its rank that is a name for the link.
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int made;
    int rank, world, name[2];
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    PMPI_Comm_size(MPI_COMM_WORLD, &world);
    name[0] = made++ * world + rank;
    name[1] = rank;
    std::memset(id, 0, sizeof *id);
    std::memcpy(id->internal, name, sizeof name);
    return ncclSuccess;
}

// Who made the id is rank 0. All others tell it where they are, and hear where all are.
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    int name[2];
    if (config->blocking) broken("a link that blocks");
    std::memcpy(name, id.internal, sizeof name);
    ncclComm_t c = *out = new ncclComm{};
    c->size = size, c->rank = rank, c->tag = name[0], c->maker = name[1];
    c->peers.assign(size, -1);
    if (rank == 0) {
        PMPI_Comm_rank(MPI_COMM_WORLD, &c->peers[0]);
        if (c->peers[0] != c->maker) broken("an id of another rank than the first");
        return ncclInProgress;
    }
    PMPI_Isend(&c->rank, 1, MPI_INT, c->maker, HELLO + c->tag, MPI_COMM_WORLD, &c->hello);
    PMPI_Irecv(c->peers.data(), size, MPI_INT, c->maker, TABLE + c->tag, MPI_COMM_WORLD, &c->table);
    return ncclInProgress;
}

static bool meet(ncclComm_t c) {
    int there = 0, left = 0, rank = 0;
    MPI_Status from;
    if (c->rank > 0) {
        PMPI_Test(&c->hello, &left, MPI_STATUS_IGNORE);
        PMPI_Test(&c->table, &there, MPI_STATUS_IGNORE);
        return left && there;
    }
    for (int p : c->peers) left += p < 0;
    for (; left > 0; left--) {
        PMPI_Iprobe(MPI_ANY_SOURCE, HELLO + c->tag, MPI_COMM_WORLD, &there, &from);
        if (!there) return false;
        PMPI_Recv(&rank, 1, MPI_INT, from.MPI_SOURCE, HELLO + c->tag, MPI_COMM_WORLD, &from);
        c->peers[rank] = from.MPI_SOURCE;
    }
    for (int r = 1; r < c->size; r++)
        PMPI_Send(c->peers.data(), c->size, MPI_INT, c->peers[r], TABLE + c->tag, MPI_COMM_WORLD);
    return true;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state) {
    if (!c->ready) c->ready = meet(c);
    *state = c->ready ? c->busy : ncclInProgress;
    c->busy = ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
    while (c->left > 0) emulated_progress();
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
    delete c;
    return ncclSuccess;
}
// What is queued still knows it.
ncclResult_t ncclCommAbort(ncclComm_t c) {
    c->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void) {
    depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void) {
    if (--depth < 0) broken("the end of a group that was not begun");
    if (depth || !open_group) return ncclSuccess;
    std::shared_ptr<group> g(open_group.release());
    g->comm->busy = ncclInProgress;
    g->comm->left++;
    emulated_push(g->stream, [g] { return work_on(*g); });
    return ncclInProgress;
}

ncclResult_t ncclSend(const void *buf, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
    return add(true, const_cast<void *>(buf), n * size_of(t), peer, c, s);
}
ncclResult_t ncclRecv(void *buf, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
    return add(false, buf, n * size_of(t), peer, c, s);
}
ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t t, ncclComm_t c,
                           cudaStream_t s) {
    size_t bytes = n * size_of(t);
    ncclGroupStart();
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank) continue;
        add(true, const_cast<void *>(in), bytes, r, c, s);
        add(false, static_cast<char *>(out) + r * bytes, bytes, r, c, s);
    }
    cudaMemcpyAsync(static_cast<char *>(out) + c->rank * bytes, in, bytes, cudaMemcpyDeviceToDevice, s);
    return ncclGroupEnd();
}
