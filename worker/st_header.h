// One safetensors header, checked whole. Inside worker/safetensors*.c only.
#ifndef SOLAR_ST_HEADER_H
#define SOLAR_ST_HEADER_H

#include <jansson.h>

#include "safetensors.h"

typedef struct st_list {
    st_tensor *at; // names are owned
    int count, capacity;
} st_list;

void st_list_free(st_list *list);
// Appends the tensors of an open file of `bytes` bytes, sorted by offset, with `file` as their file index.
// *metadata gets the __metadata__ object or NULL; the caller drops it.
err *st_header_read(const char *path, int fd, uint64_t bytes, int file, st_list *list, json_t **metadata);
// Bounds the nesting and the number of values of a JSON text before the parser, which works by recursion and
// keeps every value, gets to see it.
err *st_check_extent(const char *text, size_t bytes);

#endif
