// Sliding windows, layer by layer. A window of w tokens means that query i sees keys i-w+1 .. i, as in
// Transformers' masking_utils.py.
#include <string.h>

#include "spec_doc.h"

static void set_all(model_spec *s, int64_t window) {
    for (int64_t i = 0; i < s->layers; i++) s->window[i] = window;
}

// layer_types: the strings are checked, *sliding counts "sliding_attention".
static err *check_layer_types(const doc *d, const model_spec *s, int64_t *sliding) {
    const json_t *list = json_object_get(d->obj, "layer_types");
    if (!json_is_array(list) || (int64_t)json_array_size(list) != s->layers)
        return err_new(ERR_INPUT,
                       "%s: layer_types: found %zu entries, expected a list of num_hidden_layers = %lld",
                       d->where, json_array_size(list), (long long)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        bool slides = type && strcmp(type, "sliding_attention") == 0;
        if (!slides && !(type && strcmp(type, "full_attention") == 0))
            return err_new(
                ERR_INPUT,
                "%s: layer_types[%lld]: found %.40s, expected \"full_attention\" or \"sliding_attention\"",
                d->where, (long long)i, type ? type : "something that is not a string");
        *sliding += slides;
    }
    return NULL;
}

// The families whose layers are all alike: layer_types may only repeat that.
static err *uniform(const doc *d, model_spec *s, int64_t window) {
    set_all(s, window);
    if (!doc_has(d, "layer_types")) return NULL;
    int64_t sliding = 0;
    err *e = check_layer_types(d, s, &sliding);
    if (e || sliding == (window ? s->layers : 0)) return e;
    return err_new(
        ERR_INPUT,
        "%s: layer_types: found %lld sliding layers of %lld; with this model_type and sliding_window %s",
        d->where, (long long)sliding, (long long)s->layers,
        window ? "every layer slides" : "no layer slides");
}

static err *qwen2_windows(const doc *d, model_spec *s, int64_t window) {
    bool use = false;
    int64_t first = 28, sliding = 0; // Qwen2Config's default of max_window_layers
    err *e = doc_bool(d, "use_sliding_window", OPTIONAL, &use);
    if (!e) e = doc_int(d, "max_window_layers", OPTIONAL, 0, INT32_MAX, &first);
    if (e) return e;
    if (!use) window = 0;
    if (!doc_has(d, "layer_types")) {
        for (int64_t i = 0; i < s->layers; i++) s->window[i] = i >= first ? window : 0;
        return NULL;
    }
    e = check_layer_types(d, s, &sliding);
    if (e) return e;
    if (sliding && !window)
        return err_new(
            ERR_INPUT,
            "%s: layer_types: found sliding layers, but use_sliding_window or sliding_window is off",
            d->where);
    const json_t *list = json_object_get(d->obj, "layer_types");
    for (int64_t i = 0; i < s->layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        s->window[i] = strcmp(type, "sliding_attention") == 0 ? window : 0;
    }
    return NULL;
}

err *spec_parse_windows(const doc *d, model_spec *s) {
    if (strcmp(s->family, "llama") == 0) return uniform(d, s, 0);
    int64_t window =
        json_object_get(d->obj, "sliding_window") ? 0 : 4096; // absent is not null: both Configs default
    err *e = doc_int(d, "sliding_window", NULLABLE, 1, INT32_MAX, &window);
    if (e) return e;
    return strcmp(s->family, "mistral") == 0 ? uniform(d, s, window) : qwen2_windows(d, s, window);
}
