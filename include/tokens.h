// Token files: HDF5 with
//   /tokens     1-D uint16 (vocabulary <= 65536) or uint32, chunked, optionally deflated
//   /documents  1-D uint64, start offset of every document in /tokens, ascending, first 0
//   attributes of the root group: format_version (int, 1), vocab_size (int), tokenizer (string),
//   tokenizer_sha256 (string, "" for bytes), eos_id (int, -1 none), source (string)
// One handle per process, opened after MPI starts, used by one thread at a time.
#ifndef SOLAR_TOKENS_H
#define SOLAR_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

typedef struct tokens_info {
    uint64_t tokens, documents;
    int64_t vocab;
    int32_t eos;
    int width; // bytes per stored token
    char tokenizer[128], sha256[65], source[256];
} tokens_info;

typedef struct tokens_file tokens_file;
err *tokens_open(const char *path, tokens_file **out); // ERR_INPUT says what is wrong with the file
void tokens_close(tokens_file *f);
const tokens_info *tokens_get_info(const tokens_file *f);
const char *tokens_path(const tokens_file *f);
// Reads tokens first..first+count-1; an id >= vocab is ERR_INPUT naming file, position and id.
err *tokens_read(tokens_file *f, uint64_t first, uint64_t count, int32_t *out);
err *tokens_documents(tokens_file *f, uint64_t first, uint64_t count, uint64_t *out);

typedef struct tokens_writer tokens_writer;
// Writes into a temporary neighbour of path, published by close. `deflate` 0..9.
err *tokens_create(const char *path, const tokens_info *info, int deflate, tokens_writer **out);
// Appends one document (its end-of-document id included by the caller).
err *tokens_append(tokens_writer *w, const int32_t *id, uint64_t count);
err *tokens_writer_close(tokens_writer *w, uint64_t *tokens, uint64_t *documents);
void tokens_writer_abort(tokens_writer *w);

#endif
