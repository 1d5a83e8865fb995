// Files and directories: whole or not at all.
#ifndef SOLAR_FSUTIL_H
#define SOLAR_FSUTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

char *path_join(const char *dir, const char *name); // caller frees
bool path_exists(const char *path);
err *make_dirs(const char *path);                   // mkdir -p
err *remove_tree(const char *path);                 // rm -r; a missing path is fine
// Whole file, NUL-terminated behind its bytes; larger than `limit` is ERR_INPUT. Caller frees.
err *read_file(const char *path, size_t limit, char **out, size_t *bytes);
// Writes to a temporary neighbour, fsync, rename over path, fsync of the directory.
err *write_file_atomic(const char *path, const void *data, size_t bytes);
err *copy_file(const char *from, const char *to);   // fsynced; `to` must not exist
err *fsync_path(const char *path);                  // a file or a directory
// Hex SHA-256 of a file (65 bytes with the NUL).
err *sha256_file(const char *path, char out[65]);
void sha256_bytes(const void *data, size_t bytes, char out[65]);
// Copies the tokenizer and generation files of a model directory (tokenizer.*, *.json but config.json and
// the weight index, merges.txt, vocab.*, chat_template.*, LICENSE, ...), never weights.
err *copy_model_extras(const char *from, const char *to);

#endif
