// Documents to token ids on several threads, in the order of the input: what comes out does not depend on
// how many threads there are. One thread reads, `threads` decode and encode, the caller takes the results.
#ifndef SOLAR_ENCODE_H
#define SOLAR_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "text_input.h"
#include "tokenizer.h"

typedef struct encode_options {
    const tokenizer *tokenizer;
    text_options text;
    bool bos, eos;
    uint64_t seed; // of the hash that documents are sorted by
    int threads;
} encode_options;

typedef struct encoded {
    const int32_t *id; // with BOS and EOS as asked
    uint64_t count;
    uint64_t hash;  // of (seed, text): equal documents have equal hashes
    uint64_t bytes; // of text
} encoded;

typedef struct encoder encoder;
// The input is the encoder's until encode_close, but for text_position.
err *encode_open(text_input *in, const encode_options *options, encoder **out);
// The next document, valid until the next call; *end at the end. The first error in the order of the input.
err *encode_next(encoder *p, encoded *out, bool *end);
text_counts encode_counts(const encoder *p); // of what encode_next has passed
void encode_close(encoder *p);               // at any time; NULL is fine

uint64_t document_hash(uint64_t seed, const char *text, size_t bytes);

#endif
