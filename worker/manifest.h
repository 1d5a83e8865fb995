// The manifest of a checkpoint: size and XXH3-128 of every tensor and of every other file.
#ifndef SOLAR_MANIFEST_H
#define SOLAR_MANIFEST_H

#include <jansson.h>

#include "err.h"
#include "safetensors.h"

// An entry for a finished safetensors writer: {"file", "tensors": [{"name", "xxh3"}]}.
json_t *manifest_tensors(const char *file, const st_writer *w, const st_decl *decl, int count);
// Adds size and header checksum of the file, once it is closed: {"bytes", "header_xxh3"}.
err *manifest_header(const char *dir, json_t *entry);
// An entry for a whole file: {"file", "bytes", "xxh3"}.
err *manifest_file(const char *dir, const char *file, json_t **entry);
// Writes DIR/solar/manifest.json and manifest.xxh3 from the entries.
err *manifest_write(const char *dir, json_t *entries);
// Reads and checks the manifest itself. ERR_CONFIG: of another format version.
err *manifest_read(const char *dir, json_t **entries);
// Checks the share of one rank: items rank, rank+world, ... over all tensors, headers and files. ERR_MISMATCH
// or ERR_INPUT: damaged or missing; ERR_SYSTEM: could not be told.
err *manifest_check(const char *dir, json_t *entries, int rank, int world);

#endif
