// Words that a user wrote, on the command line or in YAML: what they are, and how to show them.
#ifndef SOLAR_SCALAR_H
#define SOLAR_SCALAR_H

#include <stdbool.h>
#include <stdint.h>

typedef enum number_status { NUMBER_OK, NUMBER_SYNTAX, NUMBER_RANGE } number_status;

// Decimal digits with an optional sign; no leading zeros, no underscores, no exponent. NUMBER_RANGE: does
// not fit 64 bits.
number_status parse_int(const char *text, int64_t *out);
// Decimal, with an optional fraction and exponent ("1e-5", "2", ".5"). NUMBER_RANGE: not finite in a
// double, or not zero but rounded to zero. "inf" and "nan" are NUMBER_SYNTAX.
number_status parse_real(const char *text, double *out);

// What a word without quotes is.
typedef enum scalar_kind {
    SCALAR_EMPTY,
    SCALAR_NULL, // null ~
    SCALAR_BOOL, // true false
    SCALAR_INT,
    SCALAR_REAL,
    SCALAR_TEXT,
} scalar_kind;
scalar_kind scalar_classify(const char *text);
const char *scalar_kind_name(scalar_kind k); // "integer"

// A short decimal that reads back as the same double; always has a point.
void format_real(char out[32], double value);

// In double quotes, without control characters, cut to a length that fits a message.
enum { SHOWN_BYTES = 80 };
void show_text(char out[SHOWN_BYTES], const char *text);

// Legal values of a number as an interval, "[1, 16777216]", "(0, inf)", "[0, 1)": [ and ] hold their end.
typedef struct range {
    double low, high;
    bool low_open, high_open;
} range;
range range_read(const char *interval); // aborts on a malformed one: it comes from our own tables
bool range_holds(const range *r, double value);
void range_words(char out[80], const range *r); // ">= 1", "> 0 and < 1", "from 0 to 9"

// The known word nearest to `word` by edit distance (a swap of neighbours is one edit) or of which it is
// the beginning; NULL when none is near.
const char *suggest(const char *word, const char *const *known, int count);

#endif
