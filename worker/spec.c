// config.json to a model spec and back. Defaults of absent keys are those of Transformers' LlamaConfig,
// MistralConfig and Qwen2Config; the sizes have none here: a config without them is not a config.
#include "spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsutil.h"
#include "spec_doc.h"

// Bounds that no real model comes near, and below which no product of sizes overflows.
enum {
    MOST_LAYERS = 1 << 16,
    MOST_HIDDEN = 1 << 20,
    MOST_FFN = 1 << 22,
    MOST_HEADS = 1 << 16,
    MOST_HEAD_DIM = 1 << 12,
    MOST_CONFIG_BYTES = 16 << 20,
};

typedef struct family {
    const char *name, *architecture;
    int64_t kv_heads; // of an absent key; 0: as many as heads
    int64_t max_positions;
    bool qkv_bias;
} family;

static const family families[] = {
    {"llama", "LlamaForCausalLM", 0, 2048, false},
    {"mistral", "MistralForCausalLM", 8, 131072, false},
    {"qwen2", "Qwen2ForCausalLM", 32, 32768, true},
};

static err *parse_family(const doc *d, const family **out) {
    const char *type = NULL;
    err *e = doc_string(d, "model_type", REQUIRED, &type);
    if (e) return e;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].name, type) == 0) *out = &families[i];
    return *out ? NULL : doc_bad(d, "model_type", "\"llama\", \"mistral\" or \"qwen2\"");
}

static err *check_architectures(const doc *d, const family *f) {
    if (!doc_has(d, "architectures")) return NULL;
    const json_t *list = json_object_get(d->obj, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) == 1 && name && strcmp(name, f->architecture) == 0) return NULL;
    char expected[96];
    snprintf(expected, sizeof expected, "[\"%s\"] with model_type \"%s\"", f->architecture, f->name);
    return doc_bad(d, "architectures", expected);
}

static err *parse_heads(const doc *d, const family *f, model_spec *s) {
    err *e = doc_int(d, "num_attention_heads", REQUIRED, 1, MOST_HEADS, &s->heads);
    if (e) return e;
    s->kv_heads = f->kv_heads && !json_object_get(d->obj, "num_key_value_heads") ? f->kv_heads : s->heads;
    e = doc_int(d, "num_key_value_heads", NULLABLE, 1, MOST_HEADS, &s->kv_heads);
    if (e) return e;
    if (s->heads % s->kv_heads != 0)
        return err_new(ERR_INPUT,
                       "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", d->where,
                       (long long)s->heads, (long long)s->kv_heads);
    e = doc_int(d, "head_dim", NULLABLE, 2, MOST_HEAD_DIM, &s->head_dim);
    if (e) return e;
    if (s->head_dim == 0 && s->hidden % s->heads != 0)
        return err_new(
            ERR_INPUT,
            "%s: hidden_size %lld is not a multiple of num_attention_heads %lld, and there is no head_dim",
            d->where, (long long)s->hidden, (long long)s->heads);
    if (s->head_dim == 0) s->head_dim = s->hidden / s->heads;
    if (s->head_dim % 2 != 0 || s->head_dim > MOST_HEAD_DIM || s->heads * s->head_dim > MOST_FFN)
        return err_new(ERR_INPUT,
                       "%s: %lld heads of %lld: expected an even head size up to %d, and at most %d in all",
                       d->where, (long long)s->heads, (long long)s->head_dim, MOST_HEAD_DIM, MOST_FFN);
    return NULL;
}

static err *parse_sizes(const doc *d, const family *f, model_spec *s) {
    err *e = NULL;
    s->max_positions = f->max_positions;
    TRY(doc_int(d, "num_hidden_layers", REQUIRED, 1, MOST_LAYERS, &s->layers));
    TRY(doc_int(d, "hidden_size", REQUIRED, 1, MOST_HIDDEN, &s->hidden));
    TRY(doc_int(d, "intermediate_size", REQUIRED, 1, MOST_FFN, &s->ffn));
    TRY(doc_int(d, "vocab_size", REQUIRED, 1, INT32_MAX, &s->vocab));
    TRY(doc_int(d, "max_position_embeddings", OPTIONAL, 1, INT32_MAX, &s->max_positions));
    TRY(parse_heads(d, f, s));
    s->window = calloc((size_t)s->layers, sizeof *s->window);
    if (!s->window) FAIL(ERR_SYSTEM, "no memory for %lld layers", (long long)s->layers);
done:
    return e;
}

static err *parse_arithmetic(const doc *d, const family *f, model_spec *s) {
    err *e = NULL;
    bool attention_bias = false;
    const char *act = "silu";
    s->norm_eps = 1e-6;
    s->init_range = 0.02;
    TRY(doc_string(d, "hidden_act", OPTIONAL, &act));
    if (strcmp(act, "silu") != 0) TRY(doc_bad(d, "hidden_act", "\"silu\""));
    TRY(doc_real(d, "rms_norm_eps", OPTIONAL, 1e-20, 1, &s->norm_eps));
    TRY(doc_real(d, "initializer_range", OPTIONAL, 0, 1, &s->init_range));
    TRY(doc_bool(d, "tie_word_embeddings", OPTIONAL, &s->tied));
    if (strcmp(f->name, "llama") == 0) {
        TRY(doc_bool(d, "attention_bias", OPTIONAL, &attention_bias));
        TRY(doc_bool(d, "mlp_bias", OPTIONAL, &s->mlp_bias));
    }
    s->qkv_bias = f->qkv_bias || attention_bias;
    s->out_bias = attention_bias; // Llama's switch covers all four projections, Qwen2 has none on the output
done:
    return e;
}

static err *parse_dtype(const doc *d, model_spec *s) {
    const char *old = NULL, *new = NULL;
    err *e = doc_string(d, "torch_dtype", NULLABLE, &old);
    if (!e) e = doc_string(d, "dtype", NULLABLE, &new);
    if (e) return e;
    const char *key = new ? "dtype" : "torch_dtype", *name = new ? new : old ? old : "float32";
    if (old && new &&strcmp(old, new) != 0) return doc_bad(d, "dtype", "the same as torch_dtype");
    s->dt = strcmp(name, "bfloat16") == 0 ? DT_BF16 : strcmp(name, "float16") == 0 ? DT_F16 : DT_F32;
    if (s->dt == DT_F32 && strcmp(name, "float32") != 0)
        return doc_bad(d, key, "\"float32\", \"bfloat16\" or \"float16\"");
    return NULL;
}

// An id, or the first of a list of ids.
static err *parse_token(const doc *d, const char *key, int64_t vocab, int64_t *out) {
    const json_t *v = json_object_get(d->obj, key);
    *out = -1;
    if (!doc_has(d, key)) return NULL;
    bool list = json_is_array(v) && json_array_size(v) > 0;
    for (size_t i = list ? json_array_size(v) : 1; i-- > 0;) {
        const json_t *id = list ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab)
            return doc_bad(d, key, "a token id below vocab_size, a list of them, or null");
        *out = json_integer_value(id);
    }
    return NULL;
}

static err *parse_all(const doc *d, model_spec *s) {
    err *e = NULL;
    const family *f = NULL;
    TRY(parse_family(d, &f));
    snprintf(s->family, sizeof s->family, "%s", f->name);
    TRY(spec_check_keys(d, f->name));
    TRY(check_architectures(d, f));
    TRY(parse_sizes(d, f, s));
    TRY(parse_arithmetic(d, f, s));
    TRY(spec_parse_rope(d, s));
    TRY(spec_parse_windows(d, s));
    TRY(parse_dtype(d, s));
    TRY(parse_token(d, "bos_token_id", s->vocab, &s->bos));
    TRY(parse_token(d, "eos_token_id", s->vocab, &s->eos));
done:
    return e;
}

err *spec_parse(json_t *config, const char *where, model_spec **out) {
    if (!json_is_object(config)) return err_new(ERR_INPUT, "%s: found no JSON object, expected one", where);
    model_spec *s = calloc(1, sizeof *s);
    if (!s) return err_new(ERR_SYSTEM, "no memory for %s", where);
    doc d = {config, where};
    s->config = json_incref(config);
    err *e = parse_all(&d, s);
    if (e)
        spec_free(s);
    else
        *out = s;
    return e;
}

err *spec_load(const char *dir, model_spec **out) {
    err *e = NULL;
    char *text = NULL, *path = path_join(dir, "config.json");
    size_t bytes = 0;
    json_t *config = NULL;
    json_error_t why;
    if (!is_dir(dir)) FAIL(ERR_INPUT, "%s is not a directory, expected a Hugging Face model directory", dir);
    TRY(read_file(path, MOST_CONFIG_BYTES, &text, &bytes));
    config = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!config) FAIL(ERR_INPUT, "%s:%d:%d: %s", path, why.line, why.column, why.text);
    TRY(spec_parse(config, path, out));
done:
    json_decref(config);
    free(text);
    free(path);
    return e;
}

void spec_free(model_spec *s) {
    if (!s) return;
    json_decref(s->config);
    free(s->window);
    free(s);
}

// ---- the deepened model

// Takes the list.
static err *set_layer_types(json_t *config, json_t *list, int layers) {
    if (list && (int)json_array_size(list) == layers && json_object_set(config, "layer_types", list) == 0) {
        json_decref(list);
        return NULL;
    }
    json_decref(list);
    return err_new(ERR_SYSTEM, "no memory for layer_types");
}

static err *map_layer_types(json_t *config, const depth_plan *plan) {
    const json_t *old = json_object_get(config, "layer_types");
    if (!json_is_array(old)) return NULL;
    json_t *new = json_array();
    for (int i = 0; i < plan->layers; i++)
        json_array_append(new, json_array_get(old, (size_t)plan->donor[i]));
    return set_layer_types(config, new, plan->layers);
}

// Windows that follow from max_window_layers do not survive a change of the layer count: spell them out.
static err *state_layer_types(json_t *config, const model_spec *base, const depth_plan *plan) {
    json_t *list = json_array();
    for (int i = 0; i < plan->layers; i++)
        json_array_append_new(
            list, json_string(base->window[plan->donor[i]] ? "sliding_attention" : "full_attention"));
    return set_layer_types(config, list, plan->layers);
}

static bool windows_follow(const model_spec *s, const model_spec *base, const depth_plan *plan) {
    for (int i = 0; i < plan->layers; i++)
        if (s->window[i] != base->window[plan->donor[i]]) return false;
    return true;
}

err *spec_deepen(const model_spec *base, const depth_plan *plan, model_spec **out) {
    err *e = NULL;
    model_spec *s = NULL;
    json_t *config = json_deep_copy(base->config);
    if (plan->base_layers != base->layers)
        FAIL(ERR_CONFIG, "the depth plan is for %d layers, the model has %lld", plan->base_layers,
             (long long)base->layers);
    if (!config || json_object_set_new(config, "num_hidden_layers", json_integer(plan->layers)) != 0)
        FAIL(ERR_SYSTEM, "no memory for a config");
    TRY(map_layer_types(config, plan));
    TRY(spec_parse(config, "the deepened config", &s));
    if (!windows_follow(s, base, plan)) {
        spec_free(s);
        s = NULL;
        TRY(state_layer_types(config, base, plan));
        TRY(spec_parse(config, "the deepened config", &s));
    }
    *out = s;
done:
    json_decref(config);
    return e;
}

// Text in which every number reads back as the same value: 1e-05 stays 1e-05.
static char *config_text(const json_t *config) {
    for (size_t digits = 6; digits <= 17; digits++) {
        char *text = json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(back, config);
        json_decref(back);
        if (same) return text;
        free(text);
    }
    return NULL;
}

err *spec_save(const model_spec *s, const char *dir) {
    char *text = config_text(s->config), *line = NULL, *path = path_join(dir, "config.json");
    err *e = NULL;
    int n = text ? asprintf(&line, "%s\n", text) : -1;
    if (n < 0) line = NULL;
    e = line ? write_file_atomic(path, line, (size_t)n) : err_new(ERR_SYSTEM, "no memory to write %s", path);
    free(line);
    free(text);
    free(path);
    return e;
}

int64_t spec_parameters(const model_spec *s) {
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    int64_t layer = 2 * s->hidden + 2 * s->hidden * q + 2 * s->hidden * kv + 3 * s->hidden * s->ffn;
    if (s->qkv_bias) layer += q + 2 * kv;
    if (s->out_bias) layer += s->hidden;
    if (s->mlp_bias) layer += 2 * s->ffn + s->hidden;
    return s->layers * layer + s->hidden + (s->tied ? 1 : 2) * s->vocab * s->hidden;
}
