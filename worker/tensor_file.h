// Writing one file of a checkpoint out of the snapshot: every range is checked for what is not finite and
// summed on its way to the disk. Runs in the background; sends nothing.
#ifndef SOLAR_TENSOR_FILE_H
#define SOLAR_TENSOR_FILE_H

#include <jansson.h>
#include <stdatomic.h>

#include "save_plan.h"

typedef struct tensor_file {
    const char *dir, *name; // of the checkpoint; of the file in it
    const save_piece *piece;
    int pieces; // that go into this file, in this order
    int tp;
    const char *memory;
    atomic_ullong *written; // bytes, for whoever watches
} tensor_file;

// Creates, writes and syncs it; *entry is what the manifest says of it. ERR_NUMERIC: something is not finite.
// On failure there may be half a file. Not collective.
err *tensor_file_write(const tensor_file *f, json_t **entry);

#endif
