#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "engine.h"

static int env_int(const char *name) {
    const char *text = getenv(name);
    return text && *text ? (int)strtol(text, NULL, 10) : 0;
}

// A launcher without a working process manager interface starts N programs that each believe to be alone.
// What the job asked for (SOLAR_RANKS, set by slurm/chain.sh) counts most, then what the launcher says.
static err *check_size(int size) {
    int slurm = getenv("SLURM_STEP_ID") ? env_int("SLURM_STEP_NUM_TASKS") : 0,
        ompi = env_int("OMPI_COMM_WORLD_SIZE"), asked = env_int("SOLAR_RANKS");
    int meant = asked ? asked : ompi ? ompi : slurm;
    if (!meant || meant == size || (size == 1 && !asked && !ompi && !getenv("SLURM_PROCID"))) return NULL;
    return err_new(
        ERR_CONFIG, // every further try would end the same way
        "MPI sees %d rank(s), the %s started %d. The launcher and this MPI do not speak to each other: "
        "try `srun --mpi=pmix`, or `mpirun` inside the allocation",
        size, asked ? "job" : "launcher", meant);
}

// Cores of this rank: those that it may run on, shared with the ranks of this host that may run on the very
// same. So it does not matter whether a launcher bound every rank, the job as a whole (a container), or
// nothing.
static int share_of_cores(MPI_Comm local, int ranks) {
    cpu_set_t mine;
    int sharers = 0;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) return (int)sysconf(_SC_NPROCESSORS_ONLN) / ranks;
    cpu_set_t *all = malloc(sizeof mine * (size_t)ranks);
    if (!all) return 1;
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, local);
    for (int i = 0; i < ranks; i++) sharers += CPU_EQUAL(&all[i], &mine) != 0;
    free(all);
    return CPU_COUNT(&mine) / (sharers ? sharers : 1);
}

err *world_open(int *argc, char ***argv, world *out) {
    int provided;
    MPI_Comm local;
    *out = (world){.size = 1, .local_size = 1};
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return err_new(ERR_PEER, "MPI_Init_thread failed");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_size(MPI_COMM_WORLD, &out->size);
    MPI_Comm_rank(MPI_COMM_WORLD, &out->rank);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, out->rank, MPI_INFO_NULL, &local);
    MPI_Comm_size(local, &out->local_size);
    MPI_Comm_rank(local, &out->local_rank);
    out->cores = share_of_cores(local, out->local_size);
    MPI_Comm_free(&local);
    return check_size(out->size);
}

bool world_orderly(const world *w, const err *e) { return !e || err_is_shared(e) || w->size == 1; }

int world_close(const char *command, const world *w, err *e) {
    int code = (int)err_get_code(e), ready = 0;
    bool alone = !world_orderly(w, e); // other ranks may know nothing of it
    MPI_Initialized(&ready);
    if (alone) e = err_wrap(e, "rank %d", w->rank);
    if (alone || w->rank == 0)
        cli_finish(command, e);
    else
        err_free(e);
    if (!ready) return code;
    if (alone) {
        fflush(NULL);
        usleep(200000); // lets the message travel before the launcher kills all ranks
        MPI_Abort(MPI_COMM_WORLD, code);
    }
    MPI_Finalize();
    return code;
}

typedef struct envelope {
    int64_t code, bytes;
} envelope;

err *world_share(const world *w, err *e, char *text, char **out) {
    const char *body = e ? err_text(e) : text;
    envelope v = {(int64_t)err_get_code(e), w->rank == 0 && body ? (int64_t)strlen(body) + 1 : 0};
    MPI_Bcast(&v, sizeof v, MPI_BYTE, 0, MPI_COMM_WORLD);
    char *copy = malloc((size_t)v.bytes + 1);
    *out = NULL;
    if (!copy) return err_first(e, err_new(ERR_SYSTEM, "out of memory for the config"));
    if (w->rank == 0 && body) memcpy(copy, body, (size_t)v.bytes);
    MPI_Bcast(copy, (int)v.bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
    free(text);
    if (!v.code) {
        *out = copy;
        return NULL;
    }
    if (!e) e = err_new((err_code)v.code, "%s", copy);
    free(copy);
    return err_share(e);
}

static err *share_failure(const world *w, err *mine, int from, int code) {
    char text[1024] = "", host[64] = "";
    gethostname(host, sizeof host - 1);
    snprintf(text, sizeof text, "rank %d (host %s): %s", w->rank, host, err_text(mine));
    MPI_Bcast(text, sizeof text, MPI_CHAR, from, MPI_COMM_WORLD);
    err_free(mine);
    return err_share(err_new((err_code)code, "%s", text));
}

err *world_agree(const world *w, err *mine) {
    int code = (int)err_get_code(mine);
    int *all = calloc((size_t)w->size, sizeof *all);
    if (w->size == 1 || !all) {
        free(all);
        return mine;
    }
    MPI_Allgather(&code, 1, MPI_INT, all, 1, MPI_INT, MPI_COMM_WORLD);
    for (int r = 0; r < w->size; r++)
        if (all[r]) {
            err *e = share_failure(w, mine, r, all[r]);
            free(all);
            return e;
        }
    free(all);
    return mine;
}

int world_threads(const world *w) { return w->cores > 0 ? w->cores : 1; }
