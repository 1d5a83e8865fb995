// What solar inspect says of a model directory, a checkpoint or one safetensors file.
#ifndef SOLAR_INSPECT_H
#define SOLAR_INSPECT_H

#include <jansson.h>
#include <stdbool.h>

#include "err.h"

// A JSON object: path; for directories the architecture ("model") and, for checkpoints, "state"; "files",
// "bytes", "types", "metadata"; with `tensors` one entry a tensor, of a checkpoint also those of the
// optimizer and every sum. Of a checkpoint also "written": mesh, precision, where and when. With `verify`
// every byte is checked: what is damaged is ERR_MISMATCH naming file and tensor. The caller drops *out. A
// directory whose files do not fit its config.json still gives *out, and the error. Not collective.
typedef struct inspect_options {
    bool tensors, verify;
    int threads; // that verify
} inspect_options;
err *inspect(const char *path, const inspect_options *o, json_t **out);

#endif
