// Files of one JSON value a line that grow while a run lives.
#ifndef SOLAR_JSONL_H
#define SOLAR_JSONL_H

#include <jansson.h>

#include "err.h"

// Calls `take` with every line that is a JSON object, in order; a line that is none was cut by a crash and is
// passed over. No file: no lines.
err *jsonl_read(const char *path, void (*take)(void *context, json_t *line), void *context);

#endif
