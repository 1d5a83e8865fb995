// SentencePiece behind C: no exception and no C++ type crosses. Functions that can fail return false and
// put the reason into `why` (WHY_BYTES).
#ifndef SOLAR_SENTENCEPIECE_SHIM_H
#define SOLAR_SENTENCEPIECE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WHY_BYTES = 512 };

typedef struct sp_model sp_model;
bool sp_open(const void *proto, size_t bytes, sp_model **out, char *why);
void sp_close(sp_model *m);
int sp_vocab(const sp_model *m);
int sp_bos(const sp_model *m); // -1: none
int sp_eos(const sp_model *m);
// Whether "A B" (one space between ASCII letters or digits) always has the ids of "A" followed by those of
// "B", so that long text can be encoded in pieces.
bool sp_splits_at_spaces(const sp_model *m);
// *ids is malloc'ed (NULL when *count is 0).
bool sp_encode(const sp_model *m, const char *text, size_t bytes, int32_t **ids, size_t *count, char *why);
// Ids must be within the vocabulary. *text is malloc'ed and NUL-terminated.
bool sp_decode(const sp_model *m, const int32_t *id, size_t count, char **text, size_t *bytes, char *why);
// The serialized model, malloc'ed.
bool sp_train(const char *input, int vocab, void **proto, size_t *bytes, char *why);

#ifdef __cplusplus
}
#endif

#endif
