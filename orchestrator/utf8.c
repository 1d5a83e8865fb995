#include "utf8.h"

#include <stdbool.h>
#include <string.h>

// Bytes at p that belong together, at most 4: a well-formed character (*good) or the longest start of one.
// Legal second bytes: Unicode 15, table 3-7.
static size_t piece(const unsigned char *p, size_t n, bool *good) {
    unsigned char low = 0x80, high = 0xbf;
    size_t need;
    *good = p[0] < 0x80;
    if (*good) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        need = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        need = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        need = 4;
    else
        return 1;
    if (p[0] == 0xe0) low = 0xa0;  // shorter forms exist
    if (p[0] == 0xed) high = 0x9f; // surrogates
    if (p[0] == 0xf0) low = 0x90;
    if (p[0] == 0xf4) high = 0x8f; // beyond U+10FFFF
    size_t i = 1;
    for (; i < need && i < n; i++) {
        if (p[i] < low || p[i] > high) break;
        low = 0x80;
        high = 0xbf;
    }
    *good = i == need;
    return i;
}

size_t utf8_valid_prefix(const char *text, size_t bytes) {
    size_t i = 0;
    while (i < bytes) {
        uint64_t eight;
        if (bytes - i >= 8 && (memcpy(&eight, text + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        bool good;
        size_t n = piece((const unsigned char *)text + i, bytes - i, &good);
        if (!good) break;
        i += n;
    }
    return i;
}

size_t utf8_replace(const char *text, size_t bytes, char *out, uint64_t *replaced) {
    size_t at = 0, n = 0;
    while (at < bytes) {
        size_t run = utf8_valid_prefix(text + at, bytes - at);
        memcpy(out + n, text + at, run);
        at += run;
        n += run;
        if (at == bytes) break;
        bool good;
        at += piece((const unsigned char *)text + at, bytes - at, &good);
        memcpy(out + n, "\xef\xbf\xbd", 3);
        n += 3;
        ++*replaced;
    }
    return n;
}
