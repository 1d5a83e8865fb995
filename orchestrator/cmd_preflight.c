// solar preflight: is every node of the job fit for it?
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "engine.h"
#include "preflight.h"

static const double MB = 1e6, GB = 1e9;

typedef struct args {
    preflight_limits limits; // in MB/s and GB until they are converted
    double write_mb, net_mb, wait;
} args;

// Rank 0's table, then a line "unfit NODE WHY" for each node that is.
static err *report(const node_facts *all, int n, const preflight_limits *limits) {
    int unfit = 0;
    char why[256];
    preflight_table(all, n, stdout);
    for (int i = 0; i < n; i++) {
        preflight_judge(all, n, i, limits, why);
        if (!*why) continue;
        printf("unfit %s %s\n", all[i].host, why);
        unfit++;
    }
    fflush(stdout);
    return unfit ? err_new(ERR_MISMATCH, "%d of %d node(s) unfit, named above", unfit, n) : NULL;
}

static err *preflight(const char *dir, const args *a, const world *w) {
    err *e = NULL;
    node_facts mine, *all = NULL;
    if (w->local_size > 1)
        FAIL(ERR_CONFIG, "%d ranks on one node, expected one on each: --ntasks-per-node=1", w->local_size);
    preflight_node(dir, a->write_mb * MB, &mine);
    TRY(preflight_network((size_t)(a->net_mb * MB), a->wait, &mine));
    all = calloc((size_t)w->size, sizeof *all);
    if (!all) FAIL(ERR_SYSTEM, "out of memory for the facts of %d nodes", w->size);
    MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, MPI_COMM_WORLD);
    if (w->rank == 0) e = report(all, w->size, &a->limits);
    e = err_share(world_agree(w, e));
done:
    free(all);
    return e;
}

static int run_preflight(int argc, char **argv) {
    args a = {.limits = {.disk = 0, .write = 0, .copy = 0, .net = 0, .clock = 2, .share = 0.5},
              .write_mb = 64,
              .net_mb = 4,
              .wait = 20};
    preflight_limits *l = &a.limits;
    const opt opts[] = {
        {"min-disk", OPT_REAL, &l->disk, "GB", "free disk space at DIR; default 0", 0, 1e9},
        {"min-write", OPT_REAL, &l->write, "MB/s", "writing there, with fsync; default 0", 0, 1e9},
        {"min-copy", OPT_REAL, &l->copy, "MB/s", "copying memory; default 0", 0, 1e9},
        {"min-net", OPT_REAL, &l->net, "MB/s", "median exchange with a peer; default 0", 0, 1e9},
        {"max-clock", OPT_REAL, &l->clock, "SECONDS", "difference of clocks; default 2", 0, 1e9},
        {"share", OPT_REAL, &l->share, "SHARE",
         "of the median of all nodes that memory and network must reach; default 0.5", 0, 1},
        {"write", OPT_REAL, &a.write_mb, "MB", "size of the file written; default 64", 0, 1e6},
        {"net", OPT_REAL, &a.net_mb, "MB", "size of the message exchanged; default 4", 0.001, 1000},
        {"wait", OPT_REAL, &a.wait, "SECONDS", "for a peer; default 20", 1, 3600},
    };
    int positional;
    bool helped;
    world w = {.size = 1};
    err *e =
        cli_parse(&cmd_preflight, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (e || helped) return cli_finish("preflight", e);
    l->disk *= GB;
    l->write *= MB, l->copy *= MB, l->net *= MB;
    TRY(world_open(&argc, &argv, &w));
    TRY(preflight(argv[1], &a, &w));
done:
    return world_close("preflight", &w, e);
}

const command cmd_preflight = {
    .name = "preflight",
    .brief = "is every node of a job fit for it: GPUs, memory, disk, clock, versions, network",
    .synopsis = "DIR [--min-disk GB] [--min-write MB/s] [--min-net MB/s] [--share SHARE]",
    .about = "Run with one rank on each node, in seconds: GPUs present, healthy and alike (as nvidia-smi "
             "says), memory\n"
             "and its speed, disk space and write speed at DIR (the run directory), the clock, the versions "
             "of program\n"
             "and libraries, and an exchange of messages between every two nodes over the interface that MPI "
             "uses.\n"
             "Prints a table and a line `unfit NODE WHY` for each node below a limit, unlike the others, or "
             "far slower\n"
             "than they are; the exit status is then 5. slurm/preflight does this in a job.",
    .examples = "  srun --mpi=pmix --ntasks-per-node=1 solar preflight runs/solar-10.7b --min-disk 500 "
                "--min-write 200\n"
                "  solar preflight .",
    .run = run_preflight,
};
