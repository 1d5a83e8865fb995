// solar sweep: a grid of runs.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "sweep.h"

static int64_t most_ranks(const sweep *s) {
    int64_t most = 1;
    for (int i = 0; i < s->n_ranks; i++)
        if (s->ranks[i] > most) most = s->ranks[i];
    return most;
}

static void print_plan(const sweep *s) {
    int done = 0;
    char kind[32], ranks[24];
    printf("%-4s %-28s %3s %-12s %6s %11s %10s %9s %5s  %s\n", "cell", "name", "n", "plan", "layers",
           "parameters", "FLOP/token", "steps", "ranks", "state");
    for (int i = 0; i < s->cells; i++) {
        const cell *c = &s->cell[i];
        bool over = cell_done(c);
        done += over;
        printf("%-4d %-28s %3d %-12s %6d %11lld %10.3g %9lld %5s  %s\n", i, c->name, c->n,
               cell_kind_name(c, kind), c->depth, (long long)c->parameters, c->flop, (long long)c->steps,
               cell_ranks_text(s, c, ranks),
               over               ? "done"
               : cell_ready(s, c) ? "to do"
                                  : "waits for its base");
    }
    printf("%d cells, %d done\nhere:       solar sweep %s --local\nwith Slurm: sbatch --array=0-%d ",
           s->cells, done, s->file, s->cells - 1);
    if (s->with_ranks) printf("--ntasks=%lld ", (long long)most_ranks(s));
    printf("jobs/sweep_mn.slurm %s\n", s->file);
}

// For jobs/sweep_mn.slurm: one argument of `solar train` on a line, or the number of ranks that the file asks
// for.
static err *print_cell(const sweep *s, int64_t i, bool ranks) {
    char **args = NULL;
    if (i >= s->cells)
        return err_new(ERR_USAGE, "--cell %lld: the sweep has cells 0 to %d", (long long)i, s->cells - 1);
    const cell *c = &s->cell[i];
    if (ranks && s->with_ranks) printf("%lld\n", (long long)c->ranks);
    if (ranks) return NULL;
    if (!cell_ready(s, c))
        return err_new(ERR_RESUME, "cell %s waits for its base, %s", c->name, s->cell[c->waits_for].name);
    err *e = cell_arguments(s, c, &args);
    for (char **a = args; !e && *a; a++) puts(*a);
    for (char **a = args; a && *a; a++) free(*a);
    free(args);
    return e;
}

static err *run_local(const sweep *s, int64_t jobs) {
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0) return err_new(ERR_SYSTEM, "the path of the program cannot be found out");
    program[n] = 0;
    int64_t threads = s->config->train.threads ? s->config->train.threads : 1;
    if (!jobs) jobs = sysconf(_SC_NPROCESSORS_ONLN) / (threads * most_ranks(s));
    return sweep_local(s, program, (int)(jobs > 0 ? jobs : 1));
}

static int run_sweep(int argc, char **argv) {
    err *e = NULL;
    bool local = false, report = false, ranks = false, helped = false;
    int64_t cell = -1, jobs = 0;
    int positional = 0;
    sweep s = {.cells = 0};
    const opt opts[] = {
        {"local", OPT_FLAG, &local, NULL, "run all cells that are not done on this machine", 0, 0},
        {"jobs", OPT_INT, &jobs, "N", "with --local: cells at once; default: as many as there are cores for",
         1, 4096},
        {"report", OPT_FLAG, &report, NULL, "tabulate and plot what is done", 0, 0},
        {"cell", OPT_INT, &cell, "I",
         "print the arguments of `solar train` for one cell; exit 75: its base is not trained yet", 0, 1e6},
        {"ranks", OPT_FLAG, &ranks, NULL,
         "with --cell: print the ranks that the file asks for, nothing if it asks for none", 0, 0},
    };
    TRY(cli_parse(&cmd_sweep, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped));
    if (helped) goto done;
    if (local + report + (cell >= 0) > 1) FAIL(ERR_USAGE, "expected one of --local, --report and --cell");
    if (jobs && !local) FAIL(ERR_USAGE, "--jobs goes with --local");
    if (ranks && cell < 0) FAIL(ERR_USAGE, "--ranks goes with --cell");
    TRY(sweep_open(argv[1], &s));
    if (cell >= 0)
        e = print_cell(&s, cell, ranks);
    else if (report)
        e = sweep_report(&s);
    else if (local)
        e = run_local(&s, jobs);
    else
        print_plan(&s);
done:
    sweep_free(&s);
    return cli_finish("sweep", e);
}

const command cmd_sweep = {
    .name = "sweep",
    .brief = "a grid of runs over base models, m, seeds and baselines: plan, run, report",
    .synopsis = "FILE.yaml [--local [--jobs N] | --report | --cell I]",
    .about =
        "Plans the cells of a grid, each a run of one common config to equal tokens or equal FLOP. "
        "Without an option it\n"
        "prints them. Cells that are done are never run again, and one that was cut goes on from its "
        "checkpoint.\n"
        "Keys of the file:\n"
        "  dir        where cells and report go\n"
        "  config     run config that all cells share; warm-up, decay and eval.every keep their share "
        "of train.steps\n"
        "  bases      list of {name, model}; layers: 0-3 takes only those of the model, tokens: N "
        "trains that base first\n"
        "  m          list: depth up-scaling, n layers become 2(n-m); 0 doubles\n"
        "  layers     list of further plans by their donors, such as \"0-3,1-4\"\n"
        "  baselines  list of base (trained on as it is), random (layers drawn by chance, kept in "
        "order), insert (new\n"
        "             layers that begin as zeros, as many as m makes)\n"
        "  seeds      list, default [1]\n"
        "  equal      list of tokens, flop; default [tokens]\n"
        "  tokens     budget of a cell\n"
        "  ranks      list; several make a scaling experiment. Default: one here, all of the job with Slurm\n"
        "  scaling    strong (default): the same batch on more ranks; weak: batch and tokens grow with "
        "the ranks",
    .examples = "  solar sweep jobs/sweep_mn.yaml\n"
                "  solar sweep jobs/sweep_mn.yaml --local\n"
                "  sbatch --array=0-156 jobs/sweep_mn.slurm jobs/sweep_mn.yaml\n"
                "  solar sweep jobs/sweep_mn.yaml --report",
    .run = run_sweep,
};
