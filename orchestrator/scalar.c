// Numbers and words of users: strict reading, and showing them in messages.
#include "scalar.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_sign(const char *s) { return *s == '-' || *s == '+' ? s + 1 : s; }

static const char *skip_digits(const char *s) {
    while (isdigit((unsigned char)*s)) s++;
    return s;
}

static bool is_int(const char *text) {
    const char *digits = skip_sign(text), *end = skip_digits(digits);
    return end > digits && !*end;
}

static bool is_real(const char *text) {
    const char *start = skip_sign(text), *s = skip_digits(start);
    long digits = s - start;
    if (*s == '.') {
        const char *fraction = s + 1;
        s = skip_digits(fraction);
        digits += s - fraction;
    }
    if (digits == 0) return false;
    if (*s == 'e' || *s == 'E') {
        const char *exponent = skip_sign(s + 1);
        s = skip_digits(exponent);
        if (s == exponent) return false;
    }
    return !*s;
}

number_status parse_int(const char *text, int64_t *out) {
    const char *digits = skip_sign(text);
    if (!is_int(text)) return NUMBER_SYNTAX;
    if (digits[0] == '0' && digits[1]) return NUMBER_SYNTAX; // 010 is 8 to some readers and 10 to others
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno == ERANGE) return NUMBER_RANGE;
    *out = v;
    return NUMBER_OK;
}

// strtod rounds below the smallest double to zero; that is a loss only where a digit was not zero.
static bool has_nonzero_digit(const char *text) {
    for (; *text && *text != 'e' && *text != 'E'; text++)
        if (*text >= '1' && *text <= '9') return true;
    return false;
}

number_status parse_real(const char *text, double *out) {
    if (!is_real(text)) return NUMBER_SYNTAX;
    double v = strtod(text, NULL);
    if (!isfinite(v) || (v == 0 && has_nonzero_digit(text))) return NUMBER_RANGE;
    *out = v;
    return NUMBER_OK;
}

scalar_kind scalar_classify(const char *text) {
    if (!*text) return SCALAR_EMPTY;
    if (!strcmp(text, "null") || !strcmp(text, "~")) return SCALAR_NULL;
    if (!strcmp(text, "true") || !strcmp(text, "false")) return SCALAR_BOOL;
    if (is_int(text)) return SCALAR_INT;
    return is_real(text) ? SCALAR_REAL : SCALAR_TEXT;
}

const char *scalar_kind_name(scalar_kind k) {
    static const char *const name[] = {"nothing", "null", "boolean", "integer", "real", "text"};
    return name[k];
}

void format_real(char out[32], double value) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    if (strpbrk(out, ".n")) return; // n: of inf and nan, which have no point to add
    // "2e-05" is text to YAML 1.1 readers, 2.0e-05 is a number to all.
    char exponent[8];
    size_t digits = strcspn(out, "e");
    snprintf(exponent, sizeof exponent, "%.7s", out + digits);
    snprintf(out + digits, 32 - digits, ".0%s", exponent);
}

void show_text(char out[SHOWN_BYTES], const char *text) {
    enum { LONGEST_PIECE = 4, TAIL = 5 }; // "\xNN"; `..."` and the NUL
    size_t used = 0;
    out[used++] = '"';
    for (; *text; text++) {
        if (used + LONGEST_PIECE + TAIL > SHOWN_BYTES) break;
        unsigned char c = (unsigned char)*text;
        bool control = c < 0x20 || c == 0x7f;
        used += (size_t)snprintf(out + used, SHOWN_BYTES - used, control ? "\\x%02x" : "%c", c);
    }
    // Do not leave half of a UTF-8 character in front of the dots.
    if (((unsigned char)*text & 0xc0) == 0x80) {
        while (used > 1 && ((unsigned char)out[used - 1] & 0xc0) == 0x80) used--;
        if (used > 1 && (unsigned char)out[used - 1] >= 0xc0) used--;
    }
    snprintf(out + used, SHOWN_BYTES - used, "%s\"", *text ? "..." : "");
}

range range_read(const char *interval) {
    range r = {.low_open = interval[0] == '('};
    char close = 0;
    if (sscanf(interval + 1, "%lf , %lf %c", &r.low, &r.high, &close) != 3) abort();
    if ((interval[0] != '(' && interval[0] != '[') || (close != ')' && close != ']')) abort();
    r.high_open = close == ')';
    return r;
}

bool range_holds(const range *r, double value) {
    bool above = r->low_open ? value > r->low : value >= r->low;
    bool below = r->high_open ? value < r->high : value <= r->high;
    return above && below;
}

void range_words(char out[80], const range *r) {
    bool low = isfinite(r->low), high = isfinite(r->high);
    if (low && high && !r->low_open && !r->high_open) {
        snprintf(out, 80, "from %.16g to %.16g", r->low, r->high);
        return;
    }
    int used = low ? snprintf(out, 80, "%s %.16g", r->low_open ? ">" : ">=", r->low) : 0;
    const char *and = low && high ? " and " : "";
    if (high) snprintf(out + used, 80 - (size_t)used, "%s%s %.16g", and, r->high_open ? "<" : "<=", r->high);
}
