// Reading a JSON object of a user's with errors that name the file and the key. Inside worker/spec*.c only.
#ifndef SOLAR_SPEC_DOC_H
#define SOLAR_SPEC_DOC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "spec.h"

typedef struct doc {
    const json_t *obj;
    const char *where; // "dir/config.json" or "dir/config.json: rope_scaling"
} doc;

typedef enum presence { REQUIRED, OPTIONAL, NULLABLE } presence; // OPTIONAL: absent is fine, null is not

bool doc_has(const doc *d, const char *key); // present and not null
// "DIR/config.json: key: found ..., expected ...".
err *doc_bad(const doc *d, const char *key, const char *expected);
// These leave *out alone when the key is absent (or null, for NULLABLE).
err *doc_int(const doc *d, const char *key, presence p, int64_t min, int64_t max, int64_t *out);
err *doc_real(const doc *d, const char *key, presence p, double min, double max, double *out);
err *doc_bool(const doc *d, const char *key, presence p, bool *out);
err *doc_string(const doc *d, const char *key, presence p, const char **out);

// worker/spec_keys.c: every key is known to this family and has a value that we can honour.
err *spec_check_keys(const doc *d, const char *family);
// worker/spec_rope.c: rope_theta, rope_scaling and rope_parameters.
err *spec_parse_rope(const doc *d, model_spec *s);
// worker/spec_window.c: the sliding window of every layer.
err *spec_parse_windows(const doc *d, model_spec *s);

#endif
