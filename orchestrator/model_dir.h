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
// The plan that --m or --layers ask for; neither leaves *out NULL. `m` < 0 means not given. Both: ERR_USAGE.
err *plan_from_options(int n, int64_t m, const char *layers, depth_plan **out);

#endif
