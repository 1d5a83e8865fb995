// solar plan: what a run would do, without doing it.
#include <stdlib.h>

#include "cli.h"
#include "plan.h"

static err *plan_config(const char *path, const opt_list *set, int64_t ranks) {
    err *e = NULL;
    config *c = NULL;
    blueprint b = {0};
    depth_ask ask;
    TRY(config_load(path, set->item, set->count, false, &c));
    ask = config_depth(c);
    layout_shape stages = plan_layout(c);
    TRY(blueprint_make(c->model.base, &ask, &stages, &b));
    if (!ranks) ranks = c->mesh.pipeline * c->mesh.tensor;
    TRY(plan_print(stdout, c, &b, (int)ranks));
done:
    blueprint_free(&b);
    config_free(c);
    return e;
}

static int run_plan(int argc, char **argv) {
    opt_list set = {0};
    int64_t ranks = 0;
    const opt opts[] = {
        {"ranks", OPT_INT, &ranks, "N", "ranks in all (default: pipeline x tensor, one data rank)", 1,
         1 << 20},
        {"set", OPT_LIST, &set, "KEY=VALUE", "overrides a key of the config; may be repeated", 0, 0},
    };
    int positional;
    bool helped;
    err *e = cli_parse(&cmd_plan, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (!e && !helped) e = plan_config(argv[1], &set, ranks);
    return cli_finish("plan", e);
}

const command cmd_plan = {
    .name = "plan",
    .brief = "what a training run would do: layers, mesh, memory, work",
    .synopsis = "CONFIG.yaml [--ranks N] [--set KEY=VALUE]...",
    .about = "Prints the layer map (donors, stages, seam), the mesh, bytes per rank by class, and the work "
             "of a step.\n"
             "Needs the base model's config.json only: no weights, no tokens, no MPI, no GPU. Bytes are "
             "those that\n"
             "`solar train` will allocate. A plan that cannot be met is an error that says why.",
    .examples = "  solar plan jobs/solar_cpt.yaml --ranks 64\n"
                "  solar plan jobs/small.yaml --ranks 4 --set mesh.pipeline=2 --set mesh.tensor=2",
    .run = run_plan,
};
