// Rotary embeddings: what config.json says of them, and the tables.
#include <math.h>
#include <string.h>

#include "spec_doc.h"

static const double two_pi = 6.283185307179586476925286766559;

// The object that holds the parameters: rope_scaling (Transformers 4) or rope_parameters (5), or none.
static err *find_object(const doc *d, const char **key) {
    const json_t *old = json_object_get(d->obj, "rope_scaling"),
                 *new = json_object_get(d->obj, "rope_parameters");
    bool has_old = doc_has(d, "rope_scaling"), has_new = doc_has(d, "rope_parameters");
    *key = has_new ? "rope_parameters" : has_old ? "rope_scaling" : NULL;
    if (has_old && has_new && !json_equal(old, new))
        return err_new(ERR_INPUT, "%s: rope_scaling and rope_parameters disagree, expected one of them",
                       d->where);
    if (*key && !json_is_object(json_object_get(d->obj, *key))) return doc_bad(d, *key, "null or an object");
    return NULL;
}

// Every key of the object must be one that this kind of scaling uses.
static err *check_rope_keys(const doc *r, rope_kind kind) {
    static const char *const plain[] = {"type", "rope_type", "rope_theta", NULL};
    static const char *const linear[] = {"type", "rope_type", "rope_theta", "factor", NULL};
    static const char *const llama3[] = {"type",
                                         "rope_type",
                                         "rope_theta",
                                         "factor",
                                         "low_freq_factor",
                                         "high_freq_factor",
                                         "original_max_position_embeddings",
                                         NULL};
    const char *const *known = kind == ROPE_PLAIN ? plain : kind == ROPE_LINEAR ? linear : llama3;
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)r->obj, key, v) {
        bool found = strcmp(key, "partial_rotary_factor") == 0 && json_number_value(v) == 1;
        for (int i = 0; known[i] && !found; i++) found = strcmp(known[i], key) == 0;
        if (!found)
            return err_new(ERR_INPUT, "%s: key \"%.80s\" is not understood for this rope type", r->where,
                           key);
    }
    return NULL;
}

static err *parse_kind(const doc *r, rope_kind *kind) {
    static const char *const supported = "\"default\", \"linear\" or \"llama3\"";
    const char *new = NULL, *old = NULL;
    err *e = doc_string(r, "rope_type", NULLABLE, &new);
    if (!e) e = doc_string(r, "type", NULLABLE, &old);
    if (e) return e;
    if (new &&old && strcmp(new, old) != 0) return doc_bad(r, "type", "the same as rope_type");
    const char *type = new ? new : old ? old : "default";
    *kind = strcmp(type, "linear") == 0   ? ROPE_LINEAR
            : strcmp(type, "llama3") == 0 ? ROPE_LLAMA3
                                          : ROPE_PLAIN;
    if (*kind == ROPE_PLAIN && strcmp(type, "default") != 0)
        return doc_bad(r, new ? "rope_type" : "type", supported);
    return NULL;
}

static err *parse_llama3(const doc *r, model_spec *s) {
    err *e = doc_real(r, "low_freq_factor", REQUIRED, 1e-6, 1e6, &s->rope_low_freq);
    if (!e) e = doc_real(r, "high_freq_factor", REQUIRED, 1e-6, 1e6, &s->rope_high_freq);
    if (!e)
        e = doc_int(r, "original_max_position_embeddings", REQUIRED, 1, INT32_MAX,
                    &s->rope_original_positions);
    if (!e && !(s->rope_low_freq < s->rope_high_freq))
        e = doc_bad(r, "low_freq_factor", "less than high_freq_factor");
    return e;
}

static err *parse_object(const doc *d, const doc *r, model_spec *s) {
    err *e = parse_kind(r, &s->rope);
    if (!e) e = check_rope_keys(r, s->rope);
    if (!e && s->rope != ROPE_PLAIN) e = doc_real(r, "factor", REQUIRED, 1, 1e6, &s->rope_factor);
    if (!e && s->rope == ROPE_LLAMA3) e = parse_llama3(r, s);
    double theta = s->rope_theta;
    if (!e) e = doc_real(r, "rope_theta", NULLABLE, 1, 1e12, &theta);
    if (!e && doc_has(d, "rope_theta") && theta != s->rope_theta)
        e = doc_bad(r, "rope_theta", "the same as the rope_theta outside");
    s->rope_theta = theta;
    return e;
}

err *spec_parse_rope(const doc *d, model_spec *s) {
    char where[512];
    const char *key = NULL;
    s->rope = ROPE_PLAIN;
    s->rope_theta = 10000; // Transformers' default for all three families
    s->rope_factor = 1;
    err *e = doc_real(d, "rope_theta", NULLABLE, 1, 1e12, &s->rope_theta);
    if (!e) e = find_object(d, &key);
    if (e || !key) return e;
    snprintf(where, sizeof where, "%s: %s", d->where, key);
    doc r = {json_object_get(d->obj, key), where};
    return parse_object(d, &r, s);
}

// Turns by low frequencies (long waves) are slowed by the factor, high ones kept, and those between blended.
static double llama3_frequency(const model_spec *s, double f) {
    double turns = (double)s->rope_original_positions * f / two_pi; // within the original context
    if (turns < s->rope_low_freq) return f / s->rope_factor;
    if (turns > s->rope_high_freq) return f;
    double keep = (turns - s->rope_low_freq) / (s->rope_high_freq - s->rope_low_freq);
    return (1 - keep) * f / s->rope_factor + keep * f;
}

static double frequency(const model_spec *s, int64_t i) {
    double f = pow(s->rope_theta, -2.0 * (double)i / (double)s->head_dim);
    if (s->rope == ROPE_LLAMA3) return llama3_frequency(s, f);
    return s->rope == ROPE_LINEAR ? f / s->rope_factor : f;
}

void spec_rope_tables(const model_spec *s, int64_t positions, float *cos_table, float *sin_table) {
    int64_t half = s->head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        double f = frequency(s, i);
        for (int64_t p = 0; p < positions; p++) {
            cos_table[p * half + i] = (float)cos((double)p * f);
            sin_table[p * half + i] = (float)sin((double)p * f);
        }
    }
}
