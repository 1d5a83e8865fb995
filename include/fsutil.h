// Files and directories: whole or not at all.
#ifndef SOLAR_FSUTIL_H
#define SOLAR_FSUTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

char *path_join(const char *dir, const char *name); // caller frees; aborts without memory
bool path_exists(const char *path);
bool is_dir(const char *path);
err *make_dirs(const char *path);   // mkdir -p
err *remove_tree(const char *path); // rm -r; a missing path is fine
// Whole file, NUL-terminated behind its bytes; larger than `limit` is ERR_INPUT. Caller frees.
err *read_file(const char *path, size_t limit, char **out, size_t *bytes);
// Opens a regular file for reading and says its size. Missing, unreadable or not a file: ERR_INPUT.
err *open_input(const char *path, int *fd, uint64_t *bytes);
// The whole of a write or a read at an offset, through EINTR and short counts. `path` is for messages.
err *write_all(int fd, const void *data, size_t bytes, const char *path);
err *pread_all(int fd, void *dst, size_t bytes, uint64_t offset, const char *path);
// Writes to a temporary neighbour, fsync, rename over path, fsync of the directory.
err *write_file_atomic(const char *path, const void *data, size_t bytes);
err *copy_file(const char *from, const char *to); // fsynced; `to` must not exist
err *fsync_path(const char *path);                // a file or a directory
// Hex SHA-256 of a file (65 bytes with the NUL).
err *sha256_file(const char *path, char out[65]);
void sha256_bytes(const void *data, size_t bytes, char out[65]);
// Copies the tokenizer and generation files of a model directory (tokenizer.*, *.json but config.json and
// the weight index, merges.txt, vocab.*, chat_template.*, LICENSE, ...), never weights.
err *copy_model_extras(const char *from, const char *to);

#endif
