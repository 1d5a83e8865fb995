#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsutil.h"
#include "sentencepiece_shim.h"

enum { BYTES_BOS = 256, BYTES_EOS = 257, BYTES_VOCAB = 258 };
// SentencePiece takes almost 100 bytes of memory a byte of text, and slows down with length (measured on 9
// MB: 4 times): long text is encoded in parts where that changes nothing.
enum { SPLIT_BYTES = 2048 };
static const size_t MODEL_LIMIT = (size_t)256 << 20;

struct tokenizer {
    sp_model *sp; // NULL: plain bytes
    char *name;
    char sha256[65];
};

void ids_free(ids *v) {
    free(v->id);
    *v = (ids){0};
}

static err *ids_reserve(ids *v, size_t more) {
    if (v->capacity - v->count >= more) return NULL;
    size_t capacity = v->count + more + v->capacity / 2;
    int32_t *grown = realloc(v->id, capacity * sizeof *grown);
    if (!grown) return err_new(ERR_SYSTEM, "no memory for %zu tokens", capacity);
    v->id = grown;
    v->capacity = capacity;
    return NULL;
}

// The model file that `path` means; caller frees.
static err *find_model(const char *path, char **file) {
    struct stat st;
    err *e = NULL;
    char *json = NULL;
    *file = NULL;
    if (stat(path, &st) != 0)
        return err_new(ERR_INPUT,
                       "%s: no such tokenizer; expected a SentencePiece model file, a model directory with "
                       "tokenizer.model, or the word bytes",
                       path);
    *file = S_ISDIR(st.st_mode) ? path_join(path, "tokenizer.model") : strdup(path);
    if (!*file) return err_new(ERR_SYSTEM, "no memory");
    if (path_exists(*file)) return NULL;
    json = path_join(path, "tokenizer.json");
    e = err_new(ERR_INPUT,
                "%s holds no tokenizer.model%s; supported are SentencePiece models (tokenizer.model) "
                "and the word bytes",
                path, json && path_exists(json) ? ", only a tokenizer.json, which is not supported" : "");
    free(json);
    free(*file);
    *file = NULL;
    return e;
}

static err *load_model(tokenizer *t, const char *path) {
    err *e = NULL;
    char *file = NULL, *proto = NULL, why[WHY_BYTES];
    size_t bytes = 0;
    TRY(find_model(path, &file));
    TRY(read_file(file, MODEL_LIMIT, &proto, &bytes));
    if (bytes == 0) FAIL(ERR_INPUT, "%s is empty, not a SentencePiece model", file);
    if (!sp_open(proto, bytes, &t->sp, why))
        FAIL(ERR_INPUT, "%s is not a SentencePiece model that can be read (%s)", file, why);
    const char *slash = strrchr(file, '/');
    t->name = strdup(slash ? slash + 1 : file);
    if (!t->name) FAIL(ERR_SYSTEM, "no memory");
    sha256_bytes(proto, bytes, t->sha256);
done:
    free(proto);
    free(file);
    return e;
}

err *tokenizer_open(const char *path, tokenizer **out) {
    err *e = NULL;
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return err_new(ERR_SYSTEM, "no memory");
    if (strcmp(path, "bytes") != 0) TRY(load_model(t, path));
    *out = t;
    t = NULL;
done:
    tokenizer_close(t);
    return e;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    sp_close(t->sp);
    free(t->name);
    free(t);
}

static err *encode_bytes(const char *text, size_t bytes, ids *v) {
    err *e = ids_reserve(v, bytes);
    for (size_t i = 0; !e && i < bytes; i++) v->id[v->count++] = (unsigned char)text[i];
    return e;
}

static err *encode_pieces(const tokenizer *t, const char *text, size_t bytes, ids *v) {
    err *e = NULL;
    int32_t *id = NULL;
    size_t n = 0;
    char why[WHY_BYTES];
    if (!sp_encode(t->sp, text, bytes, &id, &n, why))
        FAIL(ERR_RUNTIME, "SentencePiece cannot encode a text of %zu bytes: %s", bytes, why);
    TRY(ids_reserve(v, n));
    if (n > 0) memcpy(v->id + v->count, id, n * sizeof *id);
    v->count += n;
done:
    free(id);
    return e;
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// The first space between two words from SPLIT_BYTES on; `bytes` when there is none.
static size_t find_split(const char *text, size_t bytes) {
    for (size_t i = SPLIT_BYTES; i + 1 < bytes; i++)
        if (text[i] == ' ' && is_word(text[i - 1]) && is_word(text[i + 1])) return i;
    return bytes;
}

err *tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, ids *v) {
    err *e = NULL;
    if (!t->sp) return encode_bytes(text, bytes, v);
    bool splits = sp_splits_at_spaces(t->sp);
    for (size_t at = 0; at < bytes;) {
        size_t n = splits ? find_split(text + at, bytes - at) : bytes;
        TRY(encode_pieces(t, text + at, n, v));
        at += n + 1; // the space itself comes back as the start of a text
    }
done:
    return e;
}

static err *decode_bytes(const int32_t *id, size_t count, char **out) {
    size_t n = 0;
    *out = malloc(count + 1);
    if (!*out) return err_new(ERR_SYSTEM, "no memory");
    for (size_t i = 0; i < count; i++)
        if (id[i] < BYTES_BOS) (*out)[n++] = (char)id[i];
    (*out)[n] = 0;
    return NULL;
}

err *tokenizer_decode(const tokenizer *t, const int32_t *id, size_t count, char **out) {
    char why[WHY_BYTES];
    size_t bytes;
    *out = NULL;
    for (size_t i = 0; i < count; i++)
        if (id[i] < 0 || id[i] >= tokenizer_vocab(t))
            return err_new(ERR_INPUT, "token %zu is %d, outside the vocabulary of %s (%d ids)", i, id[i],
                           tokenizer_name(t), tokenizer_vocab(t));
    if (!t->sp) return decode_bytes(id, count, out);
    if (sp_decode(t->sp, id, count, out, &bytes, why)) return NULL;
    return err_new(ERR_RUNTIME, "SentencePiece cannot decode %zu tokens: %s", count, why);
}

int32_t tokenizer_vocab(const tokenizer *t) { return t->sp ? sp_vocab(t->sp) : BYTES_VOCAB; }
int32_t tokenizer_bos(const tokenizer *t) { return t->sp ? sp_bos(t->sp) : BYTES_BOS; }
int32_t tokenizer_eos(const tokenizer *t) { return t->sp ? sp_eos(t->sp) : BYTES_EOS; }
const char *tokenizer_name(const tokenizer *t) { return t->sp ? t->name : "bytes"; }
const char *tokenizer_sha256(const tokenizer *t) { return t->sha256; }

err *tokenizer_file_sha256(const char *dir, char out[65]) {
    char *path = path_join(dir, "tokenizer.model");
    out[0] = 0;
    err *e = path_exists(path) ? sha256_file(path, out) : NULL;
    free(path);
    return e;
}

err *tokenizer_train(const char *input, const char *output, int vocab) {
    err *e = NULL;
    void *proto = NULL;
    size_t bytes = 0;
    char why[WHY_BYTES];
    if (!sp_train(input, vocab, &proto, &bytes, why))
        FAIL(ERR_INPUT, "cannot train a vocabulary of %d on this text: %s", vocab, why);
    TRY(write_file_atomic(output, proto, bytes));
done:
    free(proto);
    return e;
}
