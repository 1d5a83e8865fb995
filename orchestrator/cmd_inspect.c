// solar inspect: what is in a model, a checkpoint or a safetensors file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "inspect.h"
#include "log.h"

static int run(int argc, char **argv);

const command cmd_inspect = {
    .name = "inspect",
    .brief = "say what is in a model directory, a checkpoint or a safetensors file",
    .synopsis = "PATH [--tensors] [--verify] [--json]",
    .about =
        "PATH is a Hugging Face model directory, a checkpoint of a run, or one .safetensors file. "
        "Headers are\n"
        "checked whole, and the tensors of a directory against its config.json; no weights are read. Of a "
        "checkpoint it\n"
        "also says who wrote it, and with --verify reads every byte and checks it against the manifest.",
    .examples = "solar inspect models/Mistral-7B-v0.1\n"
                "solar inspect runs/solar-10.7b/latest --json\n"
                "solar inspect runs/solar-10.7b/latest --verify\n"
                "solar inspect model-00001-of-00002.safetensors --tensors",
    .run = run,
};

// A value on one line: strings bare but escaped, for they come out of files; everything else as JSON.
static void print_value(const json_t *v) {
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | JSON_ENSURE_ASCII);
    size_t n = text ? strlen(text) : 0;
    if (json_is_string(v) && n >= 2)
        printf("%.*s\n", (int)(n - 2), text + 1);
    else
        printf("%s\n", text ? text : "?");
    free(text);
}

static void print_object(const char *title, const json_t *object) {
    const char *key = NULL;
    json_t *v = NULL;
    if (!object) return;
    printf("%s\n", title);
    json_object_foreach((json_t *)object, key, v) {
        printf("  %-20s ", key);
        print_value(v);
    }
}

static void print_files(const json_t *doc) {
    char bytes[32];
    const char *type = NULL;
    json_t *v = NULL;
    if (!json_object_get(doc, "files")) return;
    format_bytes(bytes, (double)json_integer_value(json_object_get(doc, "bytes")));
    printf("%lld tensors, %s, %lld file%s\n", (long long)json_integer_value(json_object_get(doc, "tensors")),
           bytes, (long long)json_integer_value(json_object_get(doc, "files")),
           json_integer_value(json_object_get(doc, "files")) == 1 ? "" : "s");
    json_object_foreach(json_object_get(doc, "types"), type, v) {
        printf("  %-4s %6lld tensors, %lld elements\n", type,
               (long long)json_integer_value(json_object_get(v, "tensors")),
               (long long)json_integer_value(json_object_get(v, "elements")));
    }
    if (json_object_get(doc, "depth_plan")) {
        printf("depth plan ");
        print_value(json_object_get(doc, "depth_plan"));
    }
}

static void print_table(const json_t *table) {
    for (size_t i = 0; i < json_array_size(table); i++) {
        const json_t *t = json_array_get(table, i);
        char *shape = json_dumps(json_object_get(t, "shape"), 0);
        const char *sums = json_string_value(json_object_get(t, "xxh3"));
        printf("%-56s %-4s %-16s %14lld  %s", json_string_value(json_object_get(t, "name")),
               json_string_value(json_object_get(t, "dtype")), shape ? shape : "?",
               (long long)json_integer_value(json_object_get(t, "bytes")),
               json_string_value(json_object_get(t, "file")));
        if (sums) printf("  %.32s%s", sums, strlen(sums) > 32 ? "+" : "");
        putchar('\n');
        free(shape);
    }
}

static void print_verified(const json_t *v) {
    char bytes[32];
    if (!v) return;
    double n = (double)json_integer_value(json_object_get(v, "bytes")),
           seconds = json_real_value(json_object_get(v, "seconds"));
    format_bytes(bytes, n);
    printf("verified: %s, every byte, in %.2f s (%.2f GB/s)\n", bytes, seconds, n / 1e9 / seconds);
}

static void print_text(const json_t *doc) {
    print_object("model", json_object_get(doc, "model"));
    print_object("checkpoint", json_object_get(doc, "state"));
    print_object("written", json_object_get(doc, "written"));
    print_files(doc);
    print_table(json_object_get(doc, "table"));
    print_verified(json_object_get(doc, "verified"));
}

static err *go(int argc, char **argv) {
    bool json = false, helped = false;
    int64_t threads = 0;
    inspect_options o = {0};
    int positional = 0;
    json_t *doc = NULL;
    const opt opts[] = {
        {"tensors", OPT_FLAG, &o.tensors, NULL,
         "list every tensor: name, type, shape, bytes, file, and of a checkpoint its first XXH3-128", 0, 0},
        {"verify", OPT_FLAG, &o.verify, NULL, "read and check every byte of a checkpoint", 0, 0},
        {"threads", OPT_INT, &threads, "N", "that verify; default: one a core", 1, 1024},
        {"json", OPT_FLAG, &json, NULL, "print JSON", 0, 0},
    };
    err *e =
        cli_parse(&cmd_inspect, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (e || helped) return e;
    o.threads = threads > 0 ? (int)threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    e = inspect(argv[1], &o, &doc);
    if (doc && json) {
        json_dumpf(doc, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
    } else if (doc) {
        print_text(doc);
    }
    json_decref(doc);
    return e;
}

static int run(int argc, char **argv) { return cli_finish("inspect", go(argc, argv)); }
