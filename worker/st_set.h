// What an st_set is made of. Inside worker/safetensors*.c only.
#ifndef SOLAR_ST_SET_H
#define SOLAR_ST_SET_H

#include "st_header.h"

typedef struct st_file {
    char *path;
    int fd;
    json_t *metadata; // or NULL
} st_file;

struct st_set {
    st_file *file;
    int files;
    st_list tensors;         // in order of file, then offset
    const st_tensor **named; // the same, sorted by name
};

#endif
