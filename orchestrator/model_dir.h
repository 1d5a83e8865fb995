// A model directory opened for reading: its description, its files, and proof that they fit together.
#ifndef SOLAR_MODEL_DIR_H
#define SOLAR_MODEL_DIR_H

#include <stdio.h>

#include "safetensors.h"
#include "spec.h"
#include "table.h"

typedef struct model_dir {
    model_spec *spec;
    st_set *files;
    depth_plan *same; // every layer as it is
    table *table;     // of `same`
} model_dir;

// Reads config.json and the headers of the files, and checks the files against the table. Not collective.
err *model_dir_open(const char *dir, model_dir *out);
void model_dir_close(model_dir *m); // also after a failed open

// The donors of every run of layers, and the seams, a line each.
void layer_map_print(FILE *out, const depth_plan *plan);
// The m of a plan of SOLAR's form, s = 2(n-m); -1 when it has another.
int plan_m(const depth_plan *plan);
// The options of every command that deepens a model, for its table of options (cli.h); `ask` begins with m =
// -1.
#define DEPTH_OPTIONS(ask)                                                                                     \
    {"m", OPT_INT, &(ask).m, "M", "deepen: layers 0..n-M-1, then M..n-1 (SOLAR 10.7B: 8 of 32)", 0, 65535},    \
        {"layers",                                                                                             \
         OPT_STRING,                                                                                           \
         &(ask).layers,                                                                                        \
         "LIST",                                                                                               \
         "deepen: base layers in order, like 0-23,8-31; z behind one: new, zero output; c: new, copy",         \
         0,                                                                                                    \
         0},                                                                                                   \
        {"insert-every", OPT_INT, &(ask).every, "K", "insert a new layer behind every K-th", 1, 65535},        \
        {"insert-after", OPT_STRING, &(ask).after, "LIST", "or behind each of these layers, like 7,15", 0, 0}, \
    {                                                                                                          \
        "insert-init", OPT_STRING, &(ask).init, "zero_out|copy", "how they begin (default zero_out)", 0, 0     \
    }
// ERR_USAGE: options that contradict each other.
err *depth_options_check(const depth_ask *a);

#endif
