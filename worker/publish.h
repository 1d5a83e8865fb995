// The last part of a save: from tensor files that are all written to a checkpoint that has its name. One
// rank.
#ifndef SOLAR_PUBLISH_H
#define SOLAR_PUBLISH_H

#include <jansson.h>

#include "checkpoint.h"

typedef struct publication {
    const save_options *o;
    const table *table;
    dtype dt;
    char *temp, *final; // directories
    char *state;        // text of state.json
    json_t *written;    // what the manifest says of the writers
    json_t *entries;    // of all tensor files
    uint64_t bytes;     // in them
} publication;

// Checks that the files hold every tensor, writes what else belongs to a checkpoint, the manifest last, syncs
// the directories, and publishes it. Not collective.
err *publish(publication *p);
// What `written` is: the mesh, the precision, where and when.
json_t *publication_note(const mesh *m, dtype dt);

#endif
