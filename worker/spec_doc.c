// Typed access to a JSON object.
#include "spec_doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool doc_has(const doc *d, const char *key) {
    const json_t *v = json_object_get(d->obj, key);
    return v && !json_is_null(v);
}

err *doc_bad(const doc *d, const char *key, const char *expected) {
    const json_t *v = json_object_get(d->obj, key);
    if (!v) return err_new(ERR_INPUT, "%s: key \"%s\" is missing, expected %s", d->where, key, expected);
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15) | JSON_ENSURE_ASCII);
    size_t n = text ? strlen(text) : 0;
    err *e = err_new(ERR_INPUT, "%s: %s: found %.60s%s, expected %s", d->where, key, text ? text : "?",
                     n > 60 ? "..." : "", expected);
    free(text);
    return e;
}

// Is there a value to read? An error when there has to be one.
static err *look(const doc *d, const char *key, presence p, const char *expected, const json_t **v) {
    *v = json_object_get(d->obj, key);
    if (*v && !json_is_null(*v)) return NULL;
    if (*v ? p == NULLABLE : p != REQUIRED) {
        *v = NULL;
        return NULL;
    }
    return doc_bad(d, key, expected);
}

err *doc_int(const doc *d, const char *key, presence p, int64_t min, int64_t max, int64_t *out) {
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
    const json_t *v = NULL;
    err *e = look(d, key, p, expected, &v);
    if (e || !v) return e;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return doc_bad(d, key, expected);
    *out = json_integer_value(v);
    return NULL;
}

err *doc_real(const doc *d, const char *key, presence p, double min, double max, double *out) {
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    const json_t *v = NULL;
    err *e = look(d, key, p, expected, &v);
    if (e || !v) return e;
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= min && x <= max)) return doc_bad(d, key, expected);
    *out = x;
    return NULL;
}

err *doc_bool(const doc *d, const char *key, presence p, bool *out) {
    const json_t *v = NULL;
    err *e = look(d, key, p, "true or false", &v);
    if (e || !v) return e;
    if (!json_is_boolean(v)) return doc_bad(d, key, "true or false");
    *out = json_is_true(v);
    return NULL;
}

err *doc_string(const doc *d, const char *key, presence p, const char **out) {
    const json_t *v = NULL;
    err *e = look(d, key, p, "a string", &v);
    if (e || !v) return e;
    if (!json_is_string(v)) return doc_bad(d, key, "a string");
    *out = json_string_value(v);
    return NULL;
}
