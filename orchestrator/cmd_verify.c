// solar verify: proof that a scaled model is its base model deepened.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "log.h"
#include "verify.h"

static int run(int argc, char **argv);

const command cmd_verify = {
    .name = "verify",
    .brief = "prove byte for byte that a model is its base model deepened",
    .synopsis = "BASE OUT [--m M | --layers LIST] [--insert-every K | --insert-after LIST] [--insert-init I]",
    .about =
        "Compares every tensor of OUT with the tensor of BASE that it was copied from, byte for byte, and "
        "the\n"
        "architecture in config.json with what the depth plan makes of BASE's.\n"
        "New layers that begin as zeros (solar upscale --insert-every) are proved zero in o_proj and "
        "down_proj.\n"
        "The plan is the one given by the options; else the one that OUT states (solar upscale writes "
        "it\n"
        "into the files' metadata); else it is found by comparing every layer with every layer of BASE.\n"
        "Exit status 0: proved. 5: a difference; each tensor is named, with its first different byte.",
    .examples = "solar verify models/Mistral-7B-v0.1 models/deep\n"
                "solar verify models/Mistral-7B-v0.1 models/deep --m 8 --json",
    .run = run,
};

static const char *source_text(plan_source s) {
    return s == PLAN_GIVEN ? "given" : s == PLAN_STATED ? "stated by its files" : "found by comparing";
}

static json_t *differences_json(const verify_report *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->different && i < MOST_DIFFERENCES; i++) {
        const difference *d = &r->first[i];
        json_t *one = json_pack("{s:s, s:s}", "tensor", d->tensor, "donor", d->donor);
        if (*d->what)
            json_object_set_new(one, "dtype", json_string(d->what));
        else
            json_object_set_new(one, "byte", json_integer((json_int_t)d->byte));
        json_array_append_new(list, one);
    }
    return list;
}

static err *print_json(const verify_report *r, bool equal) {
    char *plan = depth_text(r->plan);
    json_t *seams = json_array();
    for (int i = 0; i < r->plan->seams; i++) json_array_append_new(seams, json_integer(r->plan->seam[i]));
    json_t *j = json_pack("{s:b, s:s*, s:s, s:i, s:i, s:i, s:o, s:i, s:i, s:o, s:I, s:f}", "equal", equal,
                          "depth_plan", plan, "plan_source", source_text(r->source), "base_layers",
                          r->plan->base_layers, "layers", r->plan->layers, "m", plan_m(r->plan), "seams",
                          seams, "tensors", r->tensors, "different", r->different, "differences",
                          differences_json(r), "bytes", (json_int_t)r->bytes, "seconds", r->seconds);
    err *e = j ? NULL : err_new(ERR_SYSTEM, "no memory for the report");
    if (j) json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (j) putchar('\n');
    json_decref(j);
    free(plan);
    return e;
}

static void print_plan(const verify_report *r) {
    char *plan = depth_text(r->plan);
    int m = plan_m(r->plan);
    printf("plan %s, %s: n = %d", plan ? plan : "?", source_text(r->source), r->plan->base_layers);
    if (m >= 0) printf(", m = %d", m);
    printf(", s = %d, %d seam%s\n", r->plan->layers, r->plan->seams, r->plan->seams == 1 ? "" : "s");
    layer_map_print(stdout, r->plan);
    free(plan);
}

static void print_text(const verify_report *r, bool equal) {
    char bytes[32], seconds[32];
    print_plan(r);
    for (int i = 0; i < r->different && i < MOST_DIFFERENCES; i++) {
        const difference *d = &r->first[i];
        if (*d->what)
            printf("DIFFERENT %s: is %s, unlike its donor %s\n", d->tensor, d->what, d->donor);
        else
            printf("DIFFERENT %s: from byte %llu on, donor %s\n", d->tensor, (unsigned long long)d->byte,
                   d->donor);
    }
    if (r->different > MOST_DIFFERENCES) printf("... and %d more\n", r->different - MOST_DIFFERENCES);
    format_bytes(bytes, (double)r->bytes);
    format_time(seconds, r->seconds);
    printf("%d tensors, %s compared in %s: %s\n", r->tensors, bytes, seconds,
           equal ? r->plan->fresh ? "every byte equals its donor's, or is zero where it should be"
                                  : "every byte equals its donor's"
                 : "NOT the same");
}

static err *go(int argc, char **argv) {
    bool json = false, helped = false;
    verify_options o = {.progress = true, .depth = {.m = -1}};
    verify_report r = {0};
    int positional = 0;
    const opt opts[] = {
        DEPTH_OPTIONS(o.depth),
        {"json", OPT_FLAG, &json, NULL, "print the report as JSON", 0, 0},
    };
    err *e = cli_parse(&cmd_verify, opts, sizeof opts / sizeof *opts, 2, 2, argc, argv, &positional, &helped);
    if (e || helped) return e;
    o.base = argv[1];
    o.out = argv[2];
    e = verify(&o, &r);
    bool compared = r.tensors > 0 && (!e || err_get_code(e) == ERR_MISMATCH);
    if (compared && json)
        e = err_first(e, print_json(&r, e == NULL));
    else if (compared)
        print_text(&r, e == NULL);
    depth_free(r.plan);
    return e;
}

static int run(int argc, char **argv) { return cli_finish("verify", go(argc, argv)); }
