#include "gpus.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../worker/link.h"
#include "log.h"

// ---- judging

static err *rank_error(const rank_gpu *all, int r, const char *what) {
    return err_new(ERR_SYSTEM, "rank %d (host %s), GPU %s (%s): %s", r, all[r].host, all[r].info.bus,
                   all[r].info.name, what);
}

static bool alike(const gpu_info *a, const gpu_info *b) {
    return strcmp(a->name, b->name) == 0 && a->memory == b->memory && a->major == b->major &&
           a->minor == b->minor;
}

static err *check_kinds(const rank_gpu *all, int n) {
    char size[32], first[32];
    for (int r = 1; r < n; r++) {
        if (all[r].gpu != all[0].gpu)
            return err_new(ERR_SYSTEM,
                           "rank %d (host %s) has %s, rank 0 (host %s) %s: say train.device, and see that "
                           "every rank has it",
                           r, all[r].host, all[r].gpu ? "a GPU" : "no GPU", all[0].host,
                           all[0].gpu ? "has one" : "none");
        if (!all[r].gpu || alike(&all[r].info, &all[0].info)) continue;
        format_bytes(size, (double)all[r].info.memory);
        format_bytes(first, (double)all[0].info.memory);
        return err_new(
            ERR_SYSTEM,
            "GPUs of different kinds: rank %d (host %s) has %s with %s, rank 0 (host %s) %s with %s. "
            "The slowest and smallest would rule all: ask the scheduler for one kind",
            r, all[r].host, all[r].info.name, size, all[0].host, all[0].info.name, first);
    }
    return NULL;
}

static err *check_health(const rank_gpu *all, int n) {
    for (int r = 0; r < n; r++)
        if (all[r].gpu && all[r].info.health == GPU_BAD) return rank_error(all, r, all[r].info.why);
    return NULL;
}

// The first rank that uses the same GPU as one before it; -1: none does.
static int sharer(const rank_gpu *all, int n) {
    for (int r = 0; r < n; r++)
        for (int s = 0; s < r; s++)
            if (all[r].gpu && all[s].gpu && strcmp(all[r].host, all[s].host) == 0 &&
                memcmp(all[r].info.uuid, all[s].info.uuid, sizeof all[r].info.uuid) == 0)
                return r;
    return -1;
}

err *gpus_judge(const rank_gpu *all, int n, const char *transport, bool nccl, bool *linked) {
    err *e = NULL;
    bool wanted = strcmp(transport, "nccl") == 0, refused = strcmp(transport, "mpi") == 0;
    *linked = false;
    TRY(check_kinds(all, n));
    TRY(check_health(all, n));
    int shared = sharer(all, n);
    if (wanted && !all[0].gpu)
        FAIL(ERR_CONFIG, "mesh.transport: nccl is for GPUs, and the ranks compute on CPUs");
    if (wanted && !nccl)
        FAIL(ERR_CONFIG,
             "mesh.transport: nccl, but this program was built without NCCL: install its header and "
             "library and build again, or use mpi");
    if (wanted && shared >= 0)
        FAIL(ERR_CONFIG,
             "mesh.transport: nccl needs a GPU for every rank, and rank %d shares %s of host %s: start fewer "
             "ranks "
             "a host, or use mpi",
             shared, all[shared].info.bus, all[shared].host);
    *linked = n > 1 && all[0].gpu && nccl && shared < 0 && !refused;
done:
    return e;
}

// ---- near the GPU

bool cpus_among(const char *list, const cpu_set_t *mine, cpu_set_t *out) {
    CPU_ZERO(out);
    while (*list >= '0' && *list <= '9') {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9') return false;
            last = strtoul(end + 1, &end, 10);
        }
        for (unsigned long i = first; i <= last && i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, mine)) CPU_SET(i, out);
        list = *end == ',' ? end + 1 : end;
    }
    return (*list == 0 || *list == '\n') && CPU_COUNT(out) > 0;
}

// The kernel says which CPUs are near a card. Only a binding that the launcher made wider than that is
// narrowed; network adapters are NCCL's choice, which knows the same tables.
static void move_near(const gpu_info *g) {
    char path[96], list[4096];
    cpu_set_t mine, near;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/local_cpulist", g->bus);
    FILE *f = fopen(path, "re");
    if (!f) return; // a virtual machine may not tell
    if (fgets(list, sizeof list, f) && sched_getaffinity(0, sizeof mine, &mine) == 0 &&
        cpus_among(list, &mine, &near))
        sched_setaffinity(0, sizeof near, &near);
    fclose(f);
}

// ---- saying

static void say_health(const rank_gpu *all, int n) {
    int unknown = 0, at = 0;
    for (int r = n - 1; r >= 0; r--)
        if (all[r].info.health == GPU_UNKNOWN) unknown++, at = r;
    if (unknown)
        log_info("health of %d of %d GPUs not checked: %s (host %s)", unknown, n, all[at].info.why,
                 all[at].host);
}

static void say(const rank_gpu *all, int n, bool linked) {
    const gpu_info *g = &all[0].info;
    char size[32], nccl[32], peers[64] = "";
    const char *version = links_version(nccl);
    int apart = 0, shared = sharer(all, n);
    for (int r = 0; r < n; r++) apart += all[r].info.reached < all[r].info.visible;
    format_bytes(size, (double)g->memory);
    if (g->visible)
        snprintf(peers, sizeof peers,
                 apart ? ", %d without peer access to all of their host" : ", peer access to all", apart);
    log_info("GPUs: %d rank(s) on %s, %s, compute capability %d.%d%s; driver %s (CUDA %d.%d), built for CUDA "
             "%d.%d, "
             "NCCL %s; transport %s",
             n, g->name, size, g->major, g->minor, peers, *g->driver_name ? g->driver_name : "?",
             g->driver / 1000, g->driver / 10 % 100, g->runtime / 1000, g->runtime / 10 % 100,
             version ? version : "none",
             n == 1   ? "none needed"
             : linked ? "nccl"
                      : "mpi, through the host");
    if (shared >= 0) log_info("ranks share GPUs (rank %d does): fit for tests, not for speed", shared);
    say_health(all, n);
}

err *gpus_check(const world *w, device *dev, const char *transport, bool *linked) {
    err *e = NULL;
    char nccl[32];
    rank_gpu mine = {.gpu = !dev->ops->host_memory};
    rank_gpu *all = calloc((size_t)w->size, sizeof *all);
    *linked = false;
    gethostname(mine.host, sizeof mine.host - 1);
    if (!all) e = err_new(ERR_SYSTEM, "out of memory for a list of %d GPUs", w->size);
    if (!e && mine.gpu) e = cuda_info(dev, &mine.info);
    TRY(world_agree(w, e));
    if (!all) goto done; // told by world_agree
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, MPI_COMM_WORLD);
    if ((e = gpus_judge(all, w->size, transport, links_version(nccl) != NULL, linked))) {
        e = err_share(e);
        goto done;
    }
    if (mine.gpu) move_near(&mine.info);
    if (mine.gpu && w->rank == 0) say(all, w->size, *linked);
done:
    free(all);
    return e;
}
