// Which keys of config.json are understood. A key that is not here might change the arithmetic, so it is an
// error: nothing is ignored silently. The keys are those of Transformers' LlamaConfig, MistralConfig,
// Qwen2Config and PretrainedConfig, and some that published models carry without any effect.
#include <stdlib.h>
#include <string.h>

#include "spec_doc.h"

enum { LLAMA = 1, MISTRAL = 2, QWEN2 = 4, EVERY = LLAMA | MISTRAL | QWEN2 };

typedef enum rule {
    READ,      // by the parser
    NO_EFFECT, // on logits, loss and gradients
    FALSE,     // must be false (or null), else the model is another one
    ZERO,
    ONE,
    EMPTY, // null, [] or {}
} rule;

typedef struct known {
    const char *key;
    int families;
    rule rule;
} known;

static const known keys[] = {
    {"model_type", EVERY, READ},
    {"architectures", EVERY, READ},
    {"hidden_act", EVERY, READ},
    {"hidden_size", EVERY, READ},
    {"intermediate_size", EVERY, READ},
    {"num_hidden_layers", EVERY, READ},
    {"num_attention_heads", EVERY, READ},
    {"num_key_value_heads", EVERY, READ},
    {"head_dim", EVERY, READ},
    {"vocab_size", EVERY, READ},
    {"max_position_embeddings", EVERY, READ},
    {"rms_norm_eps", EVERY, READ},
    {"initializer_range", EVERY, READ},
    {"tie_word_embeddings", EVERY, READ},
    {"rope_theta", EVERY, READ},
    {"rope_scaling", EVERY, READ},
    {"rope_parameters", EVERY, READ},
    {"torch_dtype", EVERY, READ},
    {"dtype", EVERY, READ},
    {"bos_token_id", EVERY, READ},
    {"eos_token_id", EVERY, READ},
    {"layer_types", EVERY, READ},
    {"attention_bias", LLAMA, READ},
    {"mlp_bias", LLAMA, READ},
    {"sliding_window", MISTRAL | QWEN2, READ},
    {"use_sliding_window", QWEN2, READ},
    {"max_window_layers", QWEN2, READ},

    {"sliding_window", LLAMA, EMPTY},
    {"attention_bias", MISTRAL, FALSE},
    {"mlp_bias", MISTRAL | QWEN2, FALSE},
    {"use_sliding_window", LLAMA | MISTRAL, FALSE},
    {"use_mrope", QWEN2, FALSE},
    {"rope_interleaved", EVERY, FALSE},
    {"is_encoder_decoder", EVERY, FALSE},
    {"add_cross_attention", EVERY, FALSE},
    {"tie_encoder_decoder", EVERY, FALSE},
    {"attention_dropout", EVERY, ZERO},
    {"hidden_dropout", EVERY, ZERO},
    {"chunk_size_feed_forward", EVERY, ZERO},
    {"pretraining_tp", EVERY, ONE},
    {"partial_rotary_factor", EVERY, ONE},
    {"pruned_heads", EVERY, EMPTY},
    {"quantization_config", EVERY, EMPTY},
    {"auto_map", EVERY, EMPTY},

    {"_name_or_path", EVERY, NO_EFFECT},
    {"_commit_hash", EVERY, NO_EFFECT},
    {"_attn_implementation", EVERY, NO_EFFECT},
    {"_attn_implementation_autoset", EVERY, NO_EFFECT},
    {"transformers_version", EVERY, NO_EFFECT},
    {"transformers.js_config", EVERY, NO_EFFECT},
    {"unsloth_fixed", EVERY, NO_EFFECT},
    {"unsloth_version", EVERY, NO_EFFECT},
    {"is_llama_config", EVERY, NO_EFFECT},
    {"max_sequence_length", EVERY, NO_EFFECT},
    {"model_max_length", EVERY, NO_EFFECT},
    {"use_cache", EVERY, NO_EFFECT},
    {"is_decoder", EVERY, NO_EFFECT},
    {"pad_token_id", EVERY, NO_EFFECT},
    {"unk_token_id", EVERY, NO_EFFECT},
    {"sep_token_id", EVERY, NO_EFFECT},
    {"decoder_start_token_id", EVERY, NO_EFFECT},
    {"tokenizer_class", EVERY, NO_EFFECT},
    {"prefix", EVERY, NO_EFFECT},
    {"return_dict", EVERY, NO_EFFECT},
    {"output_hidden_states", EVERY, NO_EFFECT},
    {"output_attentions", EVERY, NO_EFFECT},
    {"torchscript", EVERY, NO_EFFECT},
    {"use_bfloat16", EVERY, NO_EFFECT},
    {"tf_legacy_loss", EVERY, NO_EFFECT},
    {"finetuning_task", EVERY, NO_EFFECT},
    {"task_specific_params", EVERY, NO_EFFECT},
    {"problem_type", EVERY, NO_EFFECT},
    {"id2label", EVERY, NO_EFFECT},
    {"label2id", EVERY, NO_EFFECT},
    {"num_labels", EVERY, NO_EFFECT},
    // of generation, kept in config.json by older versions
    {"max_length", EVERY, NO_EFFECT},
    {"min_length", EVERY, NO_EFFECT},
    {"max_new_tokens", EVERY, NO_EFFECT},
    {"do_sample", EVERY, NO_EFFECT},
    {"early_stopping", EVERY, NO_EFFECT},
    {"num_beams", EVERY, NO_EFFECT},
    {"num_beam_groups", EVERY, NO_EFFECT},
    {"num_return_sequences", EVERY, NO_EFFECT},
    {"diversity_penalty", EVERY, NO_EFFECT},
    {"length_penalty", EVERY, NO_EFFECT},
    {"repetition_penalty", EVERY, NO_EFFECT},
    {"encoder_no_repeat_ngram_size", EVERY, NO_EFFECT},
    {"no_repeat_ngram_size", EVERY, NO_EFFECT},
    {"bad_words_ids", EVERY, NO_EFFECT},
    {"forced_bos_token_id", EVERY, NO_EFFECT},
    {"forced_eos_token_id", EVERY, NO_EFFECT},
    {"suppress_tokens", EVERY, NO_EFFECT},
    {"begin_suppress_tokens", EVERY, NO_EFFECT},
    {"exponential_decay_length_penalty", EVERY, NO_EFFECT},
    {"remove_invalid_values", EVERY, NO_EFFECT},
    {"output_scores", EVERY, NO_EFFECT},
    {"return_dict_in_generate", EVERY, NO_EFFECT},
    {"temperature", EVERY, NO_EFFECT},
    {"top_k", EVERY, NO_EFFECT},
    {"top_p", EVERY, NO_EFFECT},
    {"typical_p", EVERY, NO_EFFECT},
};

static const known *find_known(const char *key, int family) {
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if ((keys[i].families & family) && strcmp(keys[i].key, key) == 0) return &keys[i];
    return NULL;
}

static bool is_empty(const json_t *v) {
    return (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0);
}

// null says nothing; anything else has to be the one value that we compute with.
static err *check_value(const doc *d, const known *k, const json_t *v) {
    bool number = json_is_number(v);
    if (json_is_null(v)) return NULL;
    switch (k->rule) {
    case READ:
    case NO_EFFECT: return NULL;
    case FALSE: return json_is_false(v) ? NULL : doc_bad(d, k->key, "false: nothing else is supported");
    case ZERO:
        return number && json_number_value(v) == 0 ? NULL
                                                   : doc_bad(d, k->key, "0: nothing else is supported");
    case ONE:
        return number && json_number_value(v) == 1 ? NULL
                                                   : doc_bad(d, k->key, "1: nothing else is supported");
    case EMPTY:
        return is_empty(v) ? NULL : doc_bad(d, k->key, "nothing: this is not supported for this model_type");
    }
    return NULL;
}

err *spec_check_keys(const doc *d, const char *family) {
    int bit = strcmp(family, "llama") == 0 ? LLAMA : strcmp(family, "mistral") == 0 ? MISTRAL : QWEN2;
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)d->obj, key, v) {
        const known *k = find_known(key, bit);
        if (!k)
            return err_new(
                ERR_INPUT,
                "%s: key \"%.80s\" is not understood for model_type \"%s\", and might change what the model "
                "computes; remove it if you know that it does not",
                d->where, key, family);
        err *e = check_value(d, k, v);
        if (e) return e;
    }
    return NULL;
}
