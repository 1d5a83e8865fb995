// The tensors of a model, one row each, and how tensor ranks divide them.
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What a layer is made of, in the order of the model. Sizes and units are named by the field of the spec
// that they come from.
typedef enum size { ONE, HIDDEN, FFN, QUERY, KEYVALUE } size;
typedef enum unit { NO_UNIT, HEADS, KV_HEADS, FEATURES } unit;
typedef enum condition { ALWAYS, QKV_BIAS, OUT_BIAS, MLP_BIAS } condition;

typedef struct kind {
    role role;
    const char *name; // behind "model.layers.N."
    size rows, cols;
    int axis;
    unit unit;
    condition when;
} kind;

static const kind layer_kinds[] = {
    {R_NORM1, "input_layernorm.weight", HIDDEN, ONE, -1, NO_UNIT, ALWAYS},
    {R_Q, "self_attn.q_proj.weight", QUERY, HIDDEN, 0, HEADS, ALWAYS},
    {R_QB, "self_attn.q_proj.bias", QUERY, ONE, 0, HEADS, QKV_BIAS},
    {R_K, "self_attn.k_proj.weight", KEYVALUE, HIDDEN, 0, KV_HEADS, ALWAYS},
    {R_KB, "self_attn.k_proj.bias", KEYVALUE, ONE, 0, KV_HEADS, QKV_BIAS},
    {R_V, "self_attn.v_proj.weight", KEYVALUE, HIDDEN, 0, KV_HEADS, ALWAYS},
    {R_VB, "self_attn.v_proj.bias", KEYVALUE, ONE, 0, KV_HEADS, QKV_BIAS},
    {R_O, "self_attn.o_proj.weight", HIDDEN, QUERY, 1, HEADS, ALWAYS},
    {R_OB, "self_attn.o_proj.bias", HIDDEN, ONE, -1, NO_UNIT, OUT_BIAS},
    {R_NORM2, "post_attention_layernorm.weight", HIDDEN, ONE, -1, NO_UNIT, ALWAYS},
    {R_GATE, "mlp.gate_proj.weight", FFN, HIDDEN, 0, FEATURES, ALWAYS},
    {R_GATEB, "mlp.gate_proj.bias", FFN, ONE, 0, FEATURES, MLP_BIAS},
    {R_UP, "mlp.up_proj.weight", FFN, HIDDEN, 0, FEATURES, ALWAYS},
    {R_UPB, "mlp.up_proj.bias", FFN, ONE, 0, FEATURES, MLP_BIAS},
    {R_DOWN, "mlp.down_proj.weight", HIDDEN, FFN, 1, FEATURES, ALWAYS},
    {R_DOWNB, "mlp.down_proj.bias", HIDDEN, ONE, -1, NO_UNIT, MLP_BIAS},
};

enum { LAYER_KINDS = sizeof layer_kinds / sizeof *layer_kinds };

static int64_t size_of(const model_spec *s, size z) {
    switch (z) {
    case ONE: return 1;
    case HIDDEN: return s->hidden;
    case FFN: return s->ffn;
    case QUERY: return s->heads * s->head_dim;
    case KEYVALUE: return s->kv_heads * s->head_dim;
    }
    return 0;
}

static int64_t units_of(const model_spec *s, unit u) {
    return u == HEADS ? s->heads : u == KV_HEADS ? s->kv_heads : u == FEATURES ? s->ffn : 1;
}

static bool present(const model_spec *s, condition when) {
    return when == ALWAYS || (when == QKV_BIAS && s->qkv_bias) || (when == OUT_BIAS && s->out_bias) ||
           (when == MLP_BIAS && s->mlp_bias);
}

bool role_is_output(role r) { return r == R_O || r == R_OB || r == R_DOWN || r == R_DOWNB; }

// Matrices decay, norms and biases do not.
static void add_layer(table *t, const model_spec *s, const depth_plan *plan, int layer, int stage) {
    for (int i = 0; i < LAYER_KINDS; i++) {
        const kind *k = &layer_kinds[i];
        if (!present(s, k->when)) continue;
        tensor_row *r = &t->row[t->count++];
        bool matrix = k->cols != ONE;
        *r = (tensor_row){.role = k->role, .layer = layer, .stage = stage, .axis = k->axis};
        r->ndim = matrix ? 2 : 1;
        r->decay = matrix;
        r->zero = plan->init[layer] == LAYER_ZERO && role_is_output(k->role);
        r->shape[0] = size_of(s, k->rows);
        r->shape[1] = size_of(s, k->cols);
        r->units = units_of(s, k->unit);
        snprintf(r->name, sizeof r->name, "model.layers.%d.%s", layer, k->name);
        snprintf(r->donor, sizeof r->donor, "model.layers.%d.%s", plan->donor[layer], k->name);
    }
}

static void add_other(table *t, role role, const char *name, int stage, int64_t rows, int64_t cols) {
    bool matrix = role != R_FNORM;
    tensor_row *r = &t->row[t->count++];
    *r = (tensor_row){.role = role, .layer = -1, .stage = stage, .shape = {rows, cols}, .decay = matrix};
    r->ndim = matrix ? 2 : 1;
    r->axis = matrix ? 0 : -1;
    r->units = matrix ? rows : 1;
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->donor, sizeof r->donor, "%s", name);
}

err *table_make(const model_spec *s, const depth_plan *plan, const layout *stages, table **out) {
    if (s->layers != plan->layers || (stages && stages->layers != plan->layers))
        return err_new(ERR_RUNTIME, "a table of %lld layers with a plan of %d", (long long)s->layers,
                       plan->layers);
    table *t = calloc(1, sizeof *t);
    if (t) t->row = calloc((size_t)plan->layers * LAYER_KINDS + 3, sizeof *t->row);
    if (!t || !t->row) {
        free(t);
        return err_new(ERR_SYSTEM, "no memory for the tensor table of %d layers", plan->layers);
    }
    int last = stages ? stages->ranks - 1 : 0;
    t->base_layers = plan->base_layers;
    t->tied = s->tied;
    add_other(t, R_EMBED, "model.embed_tokens.weight", 0, s->vocab, s->hidden);
    for (int i = 0; i < plan->layers; i++) add_layer(t, s, plan, i, stages ? layout_rank(stages, i) : 0);
    add_other(t, R_FNORM, "model.norm.weight", last, s->hidden, 1);
    if (!s->tied) add_other(t, R_HEAD, "lm_head.weight", last, s->vocab, s->hidden);
    *out = t;
    return NULL;
}

void table_free(table *t) {
    if (!t) return;
    free(t->row);
    free(t);
}

const tensor_row *table_find(const table *t, const char *name) {
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->row[i].name, name) == 0) return &t->row[i];
    return NULL;
}

int64_t tensor_elements(const tensor_row *r) { return r->shape[0] * r->shape[1]; }

// ---- division among tensor ranks

static slice whole(const tensor_row *r, int tp, int t) {
    return (slice){.rows = r->shape[0], .cols = r->shape[1], .copies = tp, .copy = t};
}

slice tensor_slice(const tensor_row *r, int tp, int t) {
    slice s = whole(r, tp, t);
    if (r->axis < 0) return s;
    bool heads = r->role == R_K || r->role == R_V || r->role == R_KB || r->role == R_VB;
    s.copies = heads && tp > r->units ? (int)(tp / r->units) : 1;
    s.copy = t % s.copies;
    int64_t parts = tp / s.copies, mine = t / s.copies, per_unit = r->shape[r->axis] / r->units;
    int64_t first = r->units * mine / parts * per_unit, end = r->units * (mine + 1) / parts * per_unit;
    if (r->axis == 0) {
        s.row0 = first;
        s.rows = end - first;
    } else {
        s.col0 = first;
        s.cols = end - first;
    }
    return s;
}

err *table_check_tp(const model_spec *s, int tp) {
    if (tp < 1) return err_new(ERR_CONFIG, "tensor parallel size %d, expected at least 1", tp);
    if (s->heads % tp != 0)
        return err_new(
            ERR_CONFIG,
            "tensor parallel size %d does not divide the %lld attention heads: choose a divisor of %lld", tp,
            (long long)s->heads, (long long)s->heads);
    if (s->kv_heads % tp != 0 && tp % s->kv_heads != 0)
        return err_new(
            ERR_CONFIG,
            "tensor parallel size %d neither divides the %lld key/value heads nor is a multiple of them", tp,
            (long long)s->kv_heads);
    if (s->ffn < tp || s->vocab < tp)
        return err_new(
            ERR_CONFIG,
            "tensor parallel size %d is more than the %lld features or %lld vocabulary rows to share", tp,
            (long long)s->ffn, (long long)s->vocab);
    return NULL;
}
