// Text to token files.
#ifndef SOLAR_TOKENIZE_H
#define SOLAR_TOKENIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "text_input.h"
#include "tokenizer.h"

typedef struct tokenize_options {
    const char *const *input;
    int inputs;
    text_options text;
    const char *out, *valid; // valid NULL: no split
    double valid_fraction;   // used when valid_docs is 0
    int64_t valid_docs;
    uint64_t seed; // of the split
    int threads, deflate;
    bool bos, force;
    bool progress;
} tokenize_options;

typedef struct tokenize_part {
    uint64_t documents, tokens, bytes;
} tokenize_part;

typedef struct tokenize_report {
    tokenize_part train, valid;
    text_counts counts;
    int files, skipped_files;
    double seconds;
} tokenize_report;

// Every document becomes [BOS] ids EOS. Which documents are kept for validation follows from (seed, text)
// alone, so that copies of one document stay together and a rerun splits alike. Files appear whole or not
// at all; ones that exist are ERR_USAGE without force.
err *tokenize_files(const tokenize_options *o, const tokenizer *t, tokenize_report *report);

#endif
