#ifndef SOLAR_DATA_ORDER_H
#define SOLAR_DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "stream.h"

// The training blend of a config, with its changes. Not collective.
err *open_blend(const config *c, const stream_check *check, stream **out);

// What fixes which sample stands at which position, as text: equal text, equal order. Caller frees; NULL: no
// memory.
char *data_order(const config *c, const stream *s);
// Do two such texts give the same samples at positions 0 .. position-1? What changes from `position` on may
// differ.
bool same_past(const char *a, const char *b, uint64_t position);

// Prints where the samples at positions from .. from + count-1 of a run come from, one line each: position,
// source, pass, window, file, first token.
err *print_order(const char *config_path, uint64_t from, uint64_t count);

#endif
