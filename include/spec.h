// What config.json says: an architecture as data.
#ifndef SOLAR_SPEC_H
#define SOLAR_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "depth.h"
#include "dtype.h"
#include "err.h"

typedef enum rope_kind { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } rope_kind;

typedef struct model_spec {
    char family[16]; // model_type: "llama", "mistral", "qwen2"
    int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, max_positions;
    int64_t *window; // [layers]: sliding window in tokens (keys seen, the query included), 0: none
    bool qkv_bias, out_bias, mlp_bias, tied;
    double norm_eps, init_range;
    double rope_theta;
    rope_kind rope;
    double rope_factor, rope_low_freq, rope_high_freq; // LINEAR uses factor; LLAMA3 all
    int64_t rope_original_positions;                   // LLAMA3
    int64_t bos, eos;                                  // -1 when config.json has none; first of a list
    dtype dt;                                          // torch_dtype (or dtype); F32 when absent
    json_t *config;                                    // the whole document, as read
} model_spec;

// Reads DIR/config.json. Anything that is not understood (model_type, activation, rope type, a key that
// changes the arithmetic and is not known) is ERR_INPUT naming the key, what was found and what is
// supported. Not collective.
err *spec_load(const char *dir, model_spec **out);
// As spec_load from a parsed document; `where` names it in messages. Takes its own reference.
err *spec_parse(json_t *config, const char *where, model_spec **out);
// The spec of the model after a depth plan: layer count and per-layer lists mapped, all else as it was;
// `config` is the document to write beside the weights.
err *spec_deepen(const model_spec *base, const depth_plan *plan, model_spec **out);
void spec_free(model_spec *s);
// Writes the document as DIR/config.json (atomically), numbers as short as they can be without change.
err *spec_save(const model_spec *s, const char *dir);

// cos/sin tables [positions, head_dim/2] in fp32, computed in fp64; caller owns both arrays.
// Source of the llama3 formula: Transformers modeling_rope_utils.py.
void spec_rope_tables(const model_spec *s, int64_t positions, float *cos, float *sin);
// Parameters of the model (tied head counted once).
int64_t spec_parameters(const model_spec *s);

#endif
