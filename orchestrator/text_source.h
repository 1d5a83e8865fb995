// Bytes of one file, unpacked: plain, gzip (.gz) or Zstandard (.zst), by the file's name.
#ifndef SOLAR_TEXT_SOURCE_H
#define SOLAR_TEXT_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

typedef struct text_source text_source;
err *source_open(const char *path, text_source **out);
// Reads up to `capacity` bytes; *got 0 only at the end. A truncated or damaged archive is ERR_INPUT.
err *source_read(text_source *s, char *buffer, size_t capacity, size_t *got);
uint64_t source_position(const text_source *s); // bytes of the file itself used so far
void source_close(text_source *s);              // NULL is fine

#endif
