#ifndef SOLAR_DATA_ORDER_H
#define SOLAR_DATA_ORDER_H

#include <stdint.h>

#include "err.h"

// Prints where the samples at positions from .. from + count-1 of a run come from, one line each: position,
// source, pass, window, file, first token.
err *print_order(const char *config_path, uint64_t from, uint64_t count);

#endif
