// Tokenizers: SentencePiece models and plain bytes.
#ifndef SOLAR_TOKENIZER_H
#define SOLAR_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

typedef struct tokenizer tokenizer;

typedef struct ids {
    int32_t *id;
    size_t count, capacity;
} ids;
void ids_free(ids *v);

// `path`: a SentencePiece model file, a model directory holding tokenizer.model, or "bytes" (ids: byte
// 0..255, 256 BOS, 257 EOS). A directory with only tokenizer.json is ERR_INPUT saying what is supported.
// Safe to share between threads for encoding and decoding.
err *tokenizer_open(const char *path, tokenizer **out);
void tokenizer_close(tokenizer *t);
// Appends the ids of text (no BOS, no EOS added) to v.
err *tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, ids *v);
// Text of ids; control ids give nothing, ids outside the vocabulary are ERR_INPUT. Caller frees.
err *tokenizer_decode(const tokenizer *t, const int32_t *id, size_t count, char **out);
int32_t tokenizer_vocab(const tokenizer *t);
int32_t tokenizer_bos(const tokenizer *t); // -1: none
int32_t tokenizer_eos(const tokenizer *t);
const char *tokenizer_name(const tokenizer *t);   // file name, or "bytes"
const char *tokenizer_sha256(const tokenizer *t); // of the model file; "" for bytes
// The same of a model directory's tokenizer.model, without opening it; "" when there is none.
err *tokenizer_file_sha256(const char *dir, char out[65]);
// Trains a SentencePiece BPE model with byte fallback (ids 0 unk, 1 bos, 2 eos) on the text of `input`
// (one sentence a line, at most 1 MiB each) into `output` (tokenizer.model). Equal text and vocabulary
// size give the same bytes.
err *tokenizer_train(const char *input, const char *output, int vocab);

#endif
