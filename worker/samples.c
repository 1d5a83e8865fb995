#include "samples.h"

#include <stdlib.h>

err *token_rows_make(token_rows *r, int64_t n, bool documents) {
    size_t bytes = (size_t)n * sizeof(int32_t);
    *r = (token_rows){malloc(bytes), malloc(bytes), NULL, NULL};
    if (documents) r->start = malloc(bytes), r->position = malloc(bytes);
    if (r->input && r->target && (!documents || (r->start && r->position))) return NULL;
    return err_new(ERR_SYSTEM, "out of memory for %lld tokens", (long long)n);
}

void token_rows_free(token_rows *r) {
    free(r->input);
    free(r->target);
    free(r->start);
    free(r->position);
    *r = (token_rows){0};
}

static int32_t id_of(int32_t token) { return token < 0 ? ~token : token; }

static void split_one(const int32_t *token, int64_t L, int64_t at, const token_rows *to) {
    int32_t start = 0;
    for (int64_t i = 0; i < L; i++) {
        to->input[at + i] = id_of(token[i]);
        to->target[at + i] = id_of(token[i + 1]);
        if (!to->start) continue;
        if (token[i] < 0) start = (int32_t)i;
        if (token[i + 1] < 0) to->target[at + i] = -1;
        to->start[at + i] = start;
        to->position[at + i] = (int32_t)i - start;
    }
}

void samples_split(const int32_t *sample, int64_t samples, int64_t L, const token_rows *to) {
    for (int64_t s = 0; s < samples; s++) split_one(sample + s * (L + 1), L, s * L, to);
}

// Every id changes all that follows: a multiplication by an odd number and a shift lose nothing.
static uint64_t digest_one(const int32_t *token, int64_t L) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (int64_t i = 0; i <= L; i++) {
        h = (h ^ (uint32_t)id_of(token[i])) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    return h;
}

uint64_t samples_digest(const int32_t *sample, int64_t samples, int64_t L) {
    uint64_t sum = 0;
    for (int64_t s = 0; s < samples; s++) sum += digest_one(sample + s * (L + 1), L);
    return sum;
}

int64_t samples_predicted(const int32_t *target, int64_t n) {
    int64_t predicted = 0;
    for (int64_t i = 0; i < n; i++) predicted += target[i] >= 0;
    return predicted;
}
