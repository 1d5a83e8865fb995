#include "timeline_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsutil.h"
#include "plan.h"
#include "project.h"
#include "timeline.h"

enum { WIDTH = 120 };

static trace_action action_of(const trainer *tr, int i) {
    const action *a = &tr->p->schedule[i];
    return (trace_action){a->kind, a->micro, a->v, tr->times[i].start - tr->began,
                          tr->times[i].end - tr->began};
}

// This rank's actions of the last step, and everybody's in rank order; ranks have equally many.
static err *collect(training *t, trace_action **all, int *actions) {
    const trainer *tr = t->t;
    int n = tr->actions;
    size_t bytes = (size_t)n * sizeof **all;
    trace_action *mine = calloc((size_t)n, sizeof *mine);
    *all = calloc((size_t)n * (size_t)t->m.world, sizeof **all);
    *actions = n;
    err *e = mine && *all ? NULL : err_new(ERR_SYSTEM, "out of memory for a chart of %d actions", n);
    for (int i = 0; !e && i < n; i++) mine[i] = action_of(tr, i);
    e = comm_agree(t->c, e);
    if (!e) e = comm_collect(t->c, mine, *all, bytes);
    free(mine);
    return e;
}

static void print_measured(FILE *f, const training *t, const trace_action *all, int actions) {
    int pp = t->m.pp;
    double idle = 0, formula = (pp - 1) / (actions / 2.0 + pp - 1);
    timeline_row *rows = calloc((size_t)pp, sizeof *rows);
    if (!rows) return;
    for (int p = 0; p < pp; p++)
        rows[p] = (timeline_row){p, all + (size_t)mesh_rank(&t->m, 0, p, 0) * (size_t)actions, actions};
    fprintf(f, "step %lld, measured\n", (long long)t->state.step);
    timeline_print(f, rows, pp, WIDTH);
    for (int p = 0; p < pp; p++) {
        double share = timeline_idle(rows, pp, p);
        fprintf(f, "stage %3d idle %.1f %%\n", p, 100 * share);
        idle += share / pp;
    }
    fprintf(f, "idle share %.1f %%, by (p-1)/(mv+p-1) %.1f %%\n", 100 * idle, 100 * formula);
    free(rows);
}

static err *print_planned(FILE *f, const training *t) {
    err *e = NULL;
    machine m;
    projection p = {0};
    TRY(machine_load(NULL, plan_machine(t->cfg), &m));
    TRY(project(t->cfg, &t->b, t->m.world, 1, &m, &p));
    fprintf(f, "\nplanned, on %s\n", m.name);
    projection_timeline(f, &p);
done:
    projection_free(&p);
    return e;
}

static err *write_chart(const training *t, const trace_action *all, int actions) {
    char *text = NULL, *path = path_join(t->cfg->run.dir, "timeline.txt");
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    err *e = f ? NULL : err_errno(errno, "out of memory for %s", path);
    if (f) {
        print_measured(f, t, all, actions);
        e = print_planned(f, t);
        fclose(f);
        if (!e) e = write_file_atomic(path, text, bytes);
    }
    free(text);
    free(path);
    return e;
}

err *timeline_log(training *t) {
    err *e = NULL;
    trace_action *all = NULL;
    int actions;
    TRY(collect(t, &all, &actions));
    TRY(comm_agree(t->c, t->m.rank == 0 ? write_chart(t, all, actions) : NULL));
done:
    free(all);
    return err_wrap(e, "the chart of a step");
}
