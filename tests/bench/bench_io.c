// Speed of files: `bench_io tokens DIR` writes 50M tokens and reads them as a run's stream does, in order and
// shuffled; `bench_io model DIR` writes a random Llama model of about 1.3 GB into DIR, to be upscaled.
#include "measure.h"
#include "safetensors.h"
#include "stream.h"
#include "table.h"

enum { DOCUMENT = 1000, DOCUMENTS = 50000, SEQ = 1024, ROWS = 64, VOCAB = 32000 };

// ---- tokens

static err *write_tokens(const char *path) {
    err *e = NULL;
    tokens_writer *w = NULL;
    uint64_t tokens, documents;
    int32_t id[DOCUMENT];
    uint32_t random = 1;
    TRY(tokens_create(path, &(tokens_info){.vocab = VOCAB, .eos = 2, .tokenizer = "bench"}, 0, &w));
    for (int d = 0; d < DOCUMENTS; d++) {
        for (int i = 0; i < DOCUMENT; i++) {
            random = random * 1664525u + 1013904223u;
            id[i] = i + 1 < DOCUMENT ? 3 + (int32_t)((random >> 8) % (VOCAB - 3)) : 2;
        }
        TRY(tokens_append(w, id, DOCUMENT));
    }
    e = tokens_writer_close(w, &tokens, &documents);
    w = NULL;
done:
    if (w) tokens_writer_abort(w);
    return e;
}

static err *read_stream(char *path, bool shuffle) {
    err *e = NULL;
    stream *s = NULL;
    const int32_t *rows;
    source_config source = {.name = path, .files = path, .weight = 1};
    const stream_check check = {.vocab = VOCAB, .allow_mismatch = true};
    const int64_t steps = (int64_t)DOCUMENT * DOCUMENTS / SEQ / ROWS - 1;
    TRY(stream_open(&source, 1, SEQ, 1, shuffle, &check, &s));
    double start = now();
    TRY(stream_start(s, 0, 0, ROWS, ROWS));
    for (int64_t i = 0; i < steps; i++) TRY(stream_next(s, &rows));
    printf("token stream, %s: %.1f million tokens/s\n", shuffle ? "shuffled" : "in order",
           1e-6 * (double)(steps * SEQ * ROWS) / (now() - start));
done:
    stream_close(s);
    return e;
}

static err *bench_tokens(const char *dir) {
    err *e = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s/tokens.h5", dir);
    TRY(write_tokens(path));
    TRY(read_stream(path, false));
    TRY(read_stream(path, true));
done:
    return e;
}

// ---- a model

static const char CONFIG[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 1024,"
    "\"intermediate_size\": 4096, \"num_hidden_layers\": 32, \"num_attention_heads\": 16,"
    "\"num_key_value_heads\": 16, \"vocab_size\": 32000, \"max_position_embeddings\": 2048,"
    "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": "
    "true,"
    "\"initializer_range\": 0.02, \"torch_dtype\": \"bfloat16\"}";

static err *write_tensors(const table *t, const char *path) {
    err *e = NULL;
    st_writer *w = NULL;
    st_decl *decl = calloc((size_t)t->count, sizeof *decl);
    char *data = calloc(1, (size_t)1 << 20);
    if (!decl || !data) FAIL(ERR_SYSTEM, "no memory to write a model");
    for (size_t i = 0; i < (size_t)1 << 20; i++) data[i] = (char)((i * 2654435761u) >> 16);
    for (int i = 0; i < t->count; i++) {
        const tensor_row *r = &t->row[i];
        decl[i] = (st_decl){r->name, DT_BF16, r->ndim, {r->shape[0], r->shape[1]}};
    }
    TRY(st_writer_open(path, decl, t->count, NULL, 0, &w));
    for (int i = 0; i < t->count; i++) {
        int64_t left = 2 * t->row[i].shape[0] * t->row[i].shape[1];
        for (int64_t n; left > 0; left -= n) {
            n = left < 1 << 20 ? left : 1 << 20;
            TRY(st_write(w, data, (uint64_t)n));
        }
    }
    e = st_writer_close(w);
    w = NULL;
done:
    st_writer_abort(w);
    free(decl);
    free(data);
    return e;
}

static err *bench_model(const char *dir) {
    err *e = NULL;
    char path[4096];
    model_spec *spec = NULL;
    depth_plan *plan = NULL;
    layout *stages = NULL;
    table *t = NULL;
    json_t *j = json_loads(CONFIG, 0, NULL);
    if (!j) FAIL(ERR_SYSTEM, "no memory for a config");
    TRY(spec_parse(j, "the benchmark's model", &spec));
    TRY(depth_identity((int)spec->layers, &plan));
    TRY(layout_make(plan, &(layout_shape){.pp = 1, .interleave = 1}, &stages));
    TRY(table_make(spec, plan, stages, &t));
    TRY(spec_save(spec, dir));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    TRY(write_tensors(t, path));
done:
    table_free(t);
    layout_free(stages);
    depth_free(plan);
    spec_free(spec);
    json_decref(j);
    return e;
}

int main(int argc, char **argv) {
    bool tokens = argc == 3 && !strcmp(argv[1], "tokens"), made = argc == 3 && !strcmp(argv[1], "model");
    if (!tokens && !made) {
        fprintf(stderr, "usage: bench_io tokens|model DIR\n");
        return 2;
    }
    err *e = tokens ? bench_tokens(argv[2]) : bench_model(argv[2]);
    if (!e) return 0;
    fprintf(stderr, "bench_io: %s\n", err_text(e));
    err_free(e);
    return 1;
}
