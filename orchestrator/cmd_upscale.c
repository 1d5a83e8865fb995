// solar upscale: a base model to a deeper one on disk.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "log.h"
#include "model_dir.h"
#include "upscale.h"

static int run(int argc, char **argv);

const command cmd_upscale = {
    .name = "upscale",
    .brief = "write a deeper model made of the base model's layers",
    .synopsis = "BASE OUT --m M | --layers LIST | --insert-every K | --insert-after LIST",
    .about =
        "Depth up-scaling on disk: OUT is a Hugging Face directory whose layers are copies of BASE's. With\n"
        "--m M the last M layers are cut from one copy of BASE and the first M from another, and the rest\n"
        "are stacked: n layers become 2(n-M). --layers says it layer by layer, as inclusive ranges.\n"
        "--insert-every and --insert-after put new layers behind those of BASE, or of what --m or --layers\n"
        "make: copies whose o_proj and down_proj are zeros, so that OUT computes what it would without "
        "them.\n"
        "Tensors are copied byte for byte in BASE's type; config.json changes only in the layer count and\n"
        "in lists of one entry a layer; tokenizer and generation files come along.\n"
        "OUT must not exist. It appears whole or not at all. Little memory is used, whatever the size.\n"
        "`solar train` deepens while it loads, so that training needs no OUT on disk.",
    .examples = "solar upscale models/Mistral-7B-v0.1 models/SOLAR-10.7B-start --m 8\n"
                "solar upscale models/Mistral-7B-v0.1 models/deep --layers 0-23,8-31\n"
                "solar upscale models/Mistral-7B-v0.1 models/pro --insert-every 4\n"
                "solar verify models/Mistral-7B-v0.1 models/deep",
    .run = run,
};

static err *print_json(const upscale_options *o, const upscale_report *r) {
    char *plan = depth_text(r->plan);
    json_t *seams = json_array();
    for (int i = 0; i < r->plan->seams; i++) json_array_append_new(seams, json_integer(r->plan->seam[i]));
    json_t *j = json_pack("{s:s, s:s, s:i, s:i, s:s*, s:o, s:I, s:I, s:I, s:i, s:f}", "base", o->base, "out",
                          o->out, "base_layers", r->plan->base_layers, "layers", r->plan->layers,
                          "depth_plan", plan, "seams", seams, "base_parameters",
                          (json_int_t)r->parameters_before, "parameters", (json_int_t)r->parameters_after,
                          "bytes", (json_int_t)r->bytes, "files", r->files, "seconds", r->seconds);
    err *e = j ? NULL : err_new(ERR_RUNTIME, "cannot print the report as JSON: is a path not UTF-8?");
    if (j) json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (j) putchar('\n');
    json_decref(j);
    free(plan);
    return e;
}

static void print_text(const upscale_options *o, const upscale_report *r) {
    char bytes[32], seconds[32];
    format_bytes(bytes, (double)r->bytes);
    format_time(seconds, r->seconds);
    printf("%s: %d layers from %d\n", o->out, r->plan->layers, r->plan->base_layers);
    layer_map_print(stdout, r->plan);
    printf("parameters %lld, from %lld\n", (long long)r->parameters_after, (long long)r->parameters_before);
    printf("%s in %d file%s, %s, %.0f MB/s\n", bytes, r->files, r->files == 1 ? "" : "s", seconds,
           (double)r->bytes / 1e6 / (r->seconds > 0 ? r->seconds : 1));
}

static err *go(int argc, char **argv) {
    int64_t max_shard = 5000000000;
    bool json = false, helped = false;
    upscale_options o = {.progress = true, .depth = {.m = -1}};
    upscale_report r = {0};
    int positional = 0;
    const opt opts[] = {
        DEPTH_OPTIONS(o.depth),
        {"max-shard-bytes", OPT_INT, &max_shard, "N",
         "bytes of tensors in one file at most (default 5000000000)", 1, 9e18},
        {"json", OPT_FLAG, &json, NULL, "print the report as JSON", 0, 0},
    };
    err *e =
        cli_parse(&cmd_upscale, opts, sizeof opts / sizeof *opts, 2, 2, argc, argv, &positional, &helped);
    if (e || helped) return e;
    o.base = argv[1];
    o.out = argv[2];
    o.max_shard = (uint64_t)max_shard;
    e = upscale(&o, &r);
    if (!e && json)
        e = print_json(&o, &r);
    else if (!e)
        print_text(&o, &r);
    depth_free(r.plan);
    return e;
}

static int run(int argc, char **argv) { return cli_finish("upscale", go(argc, argv)); }
