// solar plan: what a run would do, without doing it.
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "plan.h"
#include "project.h"
#include "recommend.h"

typedef struct args {
    opt_list set;
    int64_t ranks;
    const char *gpu, *machine;
    bool timeline, json;
} args;

static err *print_projection(const args *a, const projection *p) {
    json_t *doc = NULL;
    if (a->json) {
        doc = projection_json(p);
        if (!doc) return err_new(ERR_SYSTEM, "out of memory for the plan");
        json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(10));
        fputc('\n', stdout);
        json_decref(doc);
        return NULL;
    }
    err *e = plan_print(stdout, p->c, p->b, p->world);
    if (e) return e;
    projection_print(stdout, p);
    if (a->timeline) projection_timeline(stdout, p);
    return NULL;
}

static err *choose_mesh(const args *a, int ranks, const machine *m, config *c) {
    recommendation r;
    err *e = recommend(c, ranks, m, &r);
    if (e) return e;
    recommendation_print(a->json ? stderr : stdout, &r);
    recommendation_apply(&r, c);
    recommendation_free(&r);
    return NULL;
}

static err *plan_config(const char *path, const args *a) {
    err *e = NULL;
    config *c = NULL;
    blueprint b = {0};
    depth_ask ask;
    machine m;
    projection p = {0};
    TRY(config_load(path, a->set.item, a->set.count, false, &c));
    TRY(machine_load(a->machine, a->gpu ? a->gpu : plan_machine(c), &m));
    if (c->mesh.automatic && !a->ranks)
        FAIL(ERR_USAGE, "mesh auto wants to know the number of ranks: --ranks N");
    int ranks = (int)(a->ranks ? a->ranks : c->mesh.pipeline * c->mesh.tensor);
    if (c->mesh.automatic) TRY(choose_mesh(a, ranks, &m, c));
    ask = config_depth(c);
    layout_shape stages = plan_layout(c);
    TRY(blueprint_make(c->model.base, &ask, &stages, &b));
    TRY(plan_check(c, &b, ranks));
    TRY(project(c, &b, ranks, (int)c->mesh.tensor, &m, &p));
    TRY(print_projection(a, &p));
done:
    projection_free(&p);
    blueprint_free(&b);
    config_free(c);
    return e;
}

static int run_plan(int argc, char **argv) {
    args a = {0};
    const opt opts[] = {
        {"ranks", OPT_INT, &a.ranks, "N", "ranks in all (default: pipeline x tensor, one data rank)", 1,
         1 << 20},
        {"gpu", OPT_STRING, &a.gpu, "NAME",
         "machine to estimate times for: h100, h200, a100, cpu (default: mesh.machine, else by train.device)",
         0, 0},
        {"machine", OPT_STRING, &a.machine, "FILE",
         "machines of your own, in the form of slurm/machines.yaml", 0, 0},
        {"timeline", OPT_FLAG, &a.timeline, NULL, "draw one step: who works on which micro-batch when", 0, 0},
        {"json", OPT_FLAG, &a.json, NULL, "the plan as JSON", 0, 0},
        {"set", OPT_LIST, &a.set, "KEY=VALUE", "overrides a key of the config; may be repeated", 0, 0},
    };
    int positional;
    bool helped;
    err *e = cli_parse(&cmd_plan, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (!e && !helped) e = plan_config(argv[1], &a);
    return cli_finish("plan", e);
}

const command cmd_plan = {
    .name = "plan",
    .brief = "what a training run would do: layers, mesh, memory, work",
    .synopsis =
        "CONFIG.yaml [--ranks N] [--gpu NAME] [--machine FILE] [--timeline] [--json] [--set KEY=VALUE]...",
    .about =
        "Prints the layer map (donors, stages, seam), the mesh, bytes per rank by class, messages and "
        "bytes sent\n"
        "in a step by kind, its work, and on a machine its time, idle share, MFU and the days of the run.\n"
        "Needs the base model's config.json only: no weights, no tokens, no MPI, no GPU. Bytes and "
        "messages are exactly\n"
        "those of `solar train`, because the plan runs the code of its step; times are an estimate, from "
        "the figures of\n"
        "slurm/machines.yaml. Messages are those of the first data rank; the others differ by a few "
        "bytes where sums do\n"
        "not divide evenly. A plan that cannot be met is an error that says why.",
    .examples = "  solar plan jobs/solar_cpt.yaml --ranks 64 --gpu h200 --timeline\n"
                "  solar plan jobs/small.yaml --ranks 4 --set mesh.pipeline=2 --set mesh.tensor=2",
    .run = run_plan,
};
