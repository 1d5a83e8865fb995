// state.json: what a run has to know to go on.
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "fsutil.h"

void run_state_free(run_state *s) {
    free(s->depth_plan);
    free(s->data_order);
    free(s->valid_order);
    s->depth_plan = s->data_order = s->valid_order = NULL;
}

static json_t *numbers(const double *v, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static void write_guard(json_t *doc, const run_state *s) {
    json_object_set_new(doc, "skipped", json_integer(s->skipped));
    json_object_set_new(doc, "skipped_in_row", json_integer(s->skipped_in_row));
    json_object_set_new(doc, "guard_losses", numbers(s->guard.loss, s->guard.count));
    json_object_set_new(doc, "guard_norms", numbers(s->guard.norm, s->guard.count));
}

char *state_to_json(const run_state *s) {
    json_t *doc =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:s, s:i, s:s, s:s, s:o, s:o, s:I, s:I, s:I}", "format_version",
                  1, "step", (json_int_t)s->step, "samples_consumed", (json_int_t)s->samples_consumed,
                  "tokens", (json_int_t)s->tokens, "seed", (json_int_t)s->seed, "depth_plan", s->depth_plan,
                  "base_layers", s->base_layers, "data_order", s->data_order, "valid_order", s->valid_order,
                  "base_valid_loss", number(s->base_loss), "scaled_valid_loss", number(s->scaled_loss),
                  "recovered_step", (json_int_t)s->recovered_step, "recovered_tokens",
                  (json_int_t)s->recovered_tokens, "evaluated_step", (json_int_t)s->evaluated_step);
    json_object_set_new(doc, "valid_loss", number(s->valid_loss));
    json_object_set_new(doc, "config_xxh3", json_string(s->config_xxh3));
    write_guard(doc, s);
    char *text = doc ? json_dumps(doc, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(doc);
    return text;
}

static void read_list(json_t *doc, const char *key, double out[GUARD_MOST], int *count) {
    json_t *list = json_object_get(doc, key), *v;
    size_t i;
    *count = 0;
    json_array_foreach(list, i, v) {
        if (i < GUARD_MOST) out[(*count)++] = json_number_value(v);
    }
}

static void read_guard(json_t *doc, run_state *s) {
    int norms;
    read_list(doc, "guard_losses", s->guard.loss, &s->guard.count);
    read_list(doc, "guard_norms", s->guard.norm, &norms);
    if (norms != s->guard.count) s->guard.count = 0;
    s->skipped = json_integer_value(json_object_get(doc, "skipped"));
    s->skipped_in_row = json_integer_value(json_object_get(doc, "skipped_in_row"));
}

static double real_or_nan(json_t *doc, const char *key) {
    json_t *v = json_object_get(doc, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static err *parse(json_t *doc, const char *path, run_state *s) {
    json_int_t version, step, samples, tokens, seed, rstep, rtokens, evaluated;
    json_error_t je;
    const char *plan, *order, *valid;
    int n;
    if (json_unpack_ex(doc, &je, 0, "{s:I, s:I, s:I, s:I, s:I, s:s, s:i, s:s, s:s, s:I, s:I, s:I}",
                       "format_version", &version, "step", &step, "samples_consumed", &samples, "tokens",
                       &tokens, "seed", &seed, "depth_plan", &plan, "base_layers", &n, "data_order", &order,
                       "valid_order", &valid, "recovered_step", &rstep, "recovered_tokens", &rtokens,
                       "evaluated_step", &evaluated) != 0)
        return err_new(ERR_INPUT, "%s is not a training state: %s", path, je.text);
    if (version != 1)
        return err_new(ERR_INPUT, "%s has format version %lld, this program reads 1", path,
                       (long long)version);
    *s = (run_state){.step = step,
                     .samples_consumed = (uint64_t)samples,
                     .tokens = tokens,
                     .seed = seed,
                     .depth_plan = strdup(plan),
                     .base_layers = n,
                     .data_order = strdup(order),
                     .valid_order = strdup(valid),
                     .base_loss = real_or_nan(doc, "base_valid_loss"),
                     .scaled_loss = real_or_nan(doc, "scaled_valid_loss"),
                     .recovered_step = rstep,
                     .recovered_tokens = rtokens,
                     .evaluated_step = evaluated,
                     .valid_loss = real_or_nan(doc, "valid_loss")};
    const char *sum = json_string_value(json_object_get(doc, "config_xxh3"));
    snprintf(s->config_xxh3, sizeof s->config_xxh3, "%s", sum ? sum : "");
    read_guard(doc, s);
    return s->depth_plan && s->data_order && s->valid_order
               ? NULL
               : err_new(ERR_SYSTEM, "out of memory for the training state");
}

err *checkpoint_state(const char *dir, run_state *s) {
    err *e = NULL;
    char *path = path_join(dir, "solar/state.json"), *text = NULL;
    size_t bytes;
    json_error_t je;
    json_t *doc = NULL;
    *s = (run_state){0};
    TRY(read_file(path, 1 << 20, &text, &bytes));
    if (!(doc = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &je)))
        FAIL(ERR_INPUT, "%s:%d:%d: %s", path, je.line, je.column, je.text);
    TRY(parse(doc, path, s));
done:
    json_decref(doc);
    free(text);
    free(path);
    return e;
}
