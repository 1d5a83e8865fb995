// From samples, as the stream gives them, to what a model is given: inputs, targets, and where documents are
// masked the rows that each row may look at and its position in its document.
#ifndef SOLAR_SAMPLES_H
#define SOLAR_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

// Host memory, rows of sequence s at s*L .. s*L+L-1. start and position go together; NULL: documents are not
// masked.
typedef struct token_rows {
    int32_t *input;
    int32_t *target; // < 0: not predicted
    int32_t *start;  // the row of the sequence at which the row's document begins, 0 for what began before it
    int32_t *position; // row - start
} token_rows;

// Room for n rows; with `documents` start and position too.
err *token_rows_make(token_rows *r, int64_t n, bool documents);
void token_rows_free(token_rows *r); // also after a failure

// `samples` sequences of L+1 tokens: inputs are all but the last, targets all but the first. A negative one
// is the complement of an id that begins a document (stream.h); with start, the token before it does not
// predict it.
void samples_split(const int32_t *sample, int64_t samples, int64_t L, const token_rows *to);
// How many of n targets are predicted.
int64_t samples_predicted(const int32_t *target, int64_t n);
// Which samples these are: a hash of each one's ids, added up modulo 2^64. The same however they are dealt
// out and in whatever order they come; marks of documents do not count. L as above.
uint64_t samples_digest(const int32_t *sample, int64_t samples, int64_t L);

#endif
