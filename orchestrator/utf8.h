#ifndef SOLAR_UTF8_H
#define SOLAR_UTF8_H

#include <stddef.h>
#include <stdint.h>

// Length of the well-formed UTF-8 at the start of text (all of it: `bytes`).
size_t utf8_valid_prefix(const char *text, size_t bytes);
// Copies text to out (room for 3 * bytes) with U+FFFD for every maximal ill-formed piece, as Unicode 15
// section 3.9 recommends; returns the bytes written, and adds the number of pieces to *replaced.
size_t utf8_replace(const char *text, size_t bytes, char *out, uint64_t *replaced);

#endif
