// A record of a text file made into one document of valid UTF-8.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "text_input.h"
#include "utf8.h"

static err *reserve(text_decoder *d, size_t bytes) {
    if (bytes <= d->clean_capacity) return NULL;
    size_t capacity = bytes + bytes / 2;
    free(d->clean);
    d->clean_capacity = 0;
    d->clean = malloc(capacity);
    if (!d->clean) return err_new(ERR_SYSTEM, "no memory for a document of %zu bytes", bytes);
    d->clean_capacity = capacity;
    return NULL;
}

static uint64_t line_of(const text_record *r, size_t offset) {
    uint64_t line = r->line;
    for (size_t i = 0; i < offset; i++) line += r->data[i] == '\n';
    return line;
}

// The record's bytes as they are, or a copy in d->clean with what is ill-formed replaced.
static err *clean(text_decoder *d, const text_record *r, const char **text, size_t *bytes) {
    err *e = NULL;
    *text = r->data;
    *bytes = r->bytes;
    size_t good = utf8_valid_prefix(r->data, r->bytes);
    if (good == r->bytes) return NULL;
    if (d->options.strict)
        FAIL(ERR_INPUT,
             "%s:%llu: invalid UTF-8 at byte %zu (0x%02x); without --strict it is replaced by U+FFFD",
             r->file, (unsigned long long)line_of(r, good), good, (unsigned char)r->data[good]);
    TRY(reserve(d, 3 * r->bytes + 1));
    *bytes = utf8_replace(r->data, r->bytes, d->clean, &d->counts.invalid_utf8);
    *text = d->clean;
done:
    return e;
}

static err *broken(text_decoder *d, const text_record *r, const char *why, const char *detail) {
    d->counts.broken++;
    if (!d->options.strict) return NULL;
    return err_new(ERR_INPUT, "%s:%llu: %s%s; without --strict such lines are counted and skipped", r->file,
                   (unsigned long long)r->line, why, detail);
}

static err *decode_json(text_decoder *d, const text_record *r, const char **text, size_t *bytes) {
    err *e = NULL;
    const char *line, *field = d->options.field ? d->options.field : "text";
    size_t n;
    TRY(clean(d, r, &line, &n));
    json_error_t why;
    // numbers as reals: an id of 20 digits beside the text is no reason to drop a document
    json_t *doc = json_loadb(line, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    d->json = doc;
    if (!doc) return broken(d, r, "not JSON: ", why.text);
    if (!json_is_object(doc)) return broken(d, r, "not a JSON object", "");
    json_t *value = json_object_get(doc, field);
    if (!value) return broken(d, r, "no field named ", field);
    if (!json_is_string(value)) return broken(d, r, "not a string: the field ", field);
    *text = json_string_value(value);
    *bytes = json_string_length(value);
done:
    return e;
}

// CR LF becomes LF, in place.
static size_t unix_lines(char *text, size_t bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        if (text[i] != '\r' || i + 1 == bytes || text[i + 1] != '\n') text[n++] = text[i];
    return n;
}

static err *decode_plain(text_decoder *d, const text_record *r, const char **text, size_t *bytes) {
    err *e = NULL;
    TRY(clean(d, r, text, bytes));
    if (*text != d->clean) {
        TRY(reserve(d, *bytes + 1));
        memcpy(d->clean, *text, *bytes);
    }
    *bytes = unix_lines(d->clean, *bytes);
    d->clean[*bytes] = 0;
    *text = d->clean;
done:
    return e;
}

err *text_decode(text_decoder *d, const text_record *r, const char **text, size_t *bytes) {
    err *e = NULL;
    json_decref(d->json);
    d->json = NULL;
    *text = NULL;
    *bytes = 0;
    TRY(r->json ? decode_json(d, r, text, bytes) : decode_plain(d, r, text, bytes));
    if (!*text) goto done;
    if (*bytes == 0) {
        d->counts.empty++;
        *text = NULL;
        goto done;
    }
    d->counts.documents++;
    d->counts.bytes += *bytes;
done:
    if (e) *text = NULL;
    return e;
}

void text_decoder_clear(text_decoder *d) {
    json_decref(d->json);
    free(d->clean);
    d->json = NULL;
    d->clean = NULL;
    d->clean_capacity = 0;
}
