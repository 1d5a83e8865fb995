// The windows of the files of one source, in the order of the files' names.
#ifndef SOLAR_TOKEN_SOURCE_H
#define SOLAR_TOKEN_SOURCE_H

#include <stdint.h>

#include "document_index.h"
#include "stream.h"
#include "tokens.h"

typedef struct token_source {
    tokens_file **file;
    document_index **documents; // [files]; NULL: documents are not marked
    uint64_t *first; // [files + 1]: window that each file starts with; the last is the number of windows
    int files;
    uint64_t tokens;
    int64_t seq_len;
} token_source;

// Opens what `config->files` names (a path or a glob), checked against the model and each other.
// ERR_INPUT: no file, a tokenizer or vocabulary that does not match, not one window in all.
err *token_source_open(const source_config *config, int64_t seq_len, const stream_check *check,
                       token_source *out);
void token_source_close(token_source *s);
uint64_t token_source_windows(const token_source *s);
// File that holds a window, and the window's first token in it.
tokens_file *token_source_find(const token_source *s, uint64_t window, uint64_t *token);
// seq_len + 1 tokens, marked when stream_check asked for it.
err *token_source_read(const token_source *s, uint64_t window, int32_t *out);

#endif
