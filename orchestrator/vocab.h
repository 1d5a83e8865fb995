// Training a vocabulary on users' text.
#ifndef SOLAR_VOCAB_H
#define SOLAR_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "text_input.h"

typedef struct vocab_options {
    int pieces;
    uint64_t most_bytes; // of text to learn from; more is thinned out evenly, by document
    uint64_t seed;
    bool force;         // an output that exists is replaced; else ERR_USAGE
    const char *output; // tokenizer.model
} vocab_options;

typedef struct vocab_report {
    uint64_t documents, bytes; // learned from
} vocab_report;

// Equal input and options give the same bytes of output.
err *vocab_train(text_input *in, const vocab_options *o, vocab_report *report);

#endif
