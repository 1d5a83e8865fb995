// What solar inspect says of a model directory, a checkpoint or one safetensors file.
#ifndef SOLAR_INSPECT_H
#define SOLAR_INSPECT_H

#include <jansson.h>
#include <stdbool.h>

#include "err.h"

// A JSON object: path; for directories the architecture ("model") and, for checkpoints, "state"; "files",
// "bytes", "types", "metadata"; with `tensors` one entry a tensor. The caller drops *out. A directory whose
// files do not fit its config.json still gives *out, and the error. Not collective.
err *inspect(const char *path, bool tensors, json_t **out);

#endif
