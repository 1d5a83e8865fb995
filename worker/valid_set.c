// Validation: the same windows every time.
#include <stdlib.h>

#include "stream.h"
#include "token_source.h"

struct valid_set {
    token_source source;
    uint64_t samples;
};

err *valid_open(const source_config *src, int64_t seq_len, const stream_check *check, valid_set **out) {
    err *e = NULL;
    *out = NULL;
    valid_set *v = calloc(1, sizeof *v);
    if (!v) return err_new(ERR_SYSTEM, "no memory");
    TRY(token_source_open(src, seq_len, check, &v->source));
    uint64_t windows = token_source_windows(&v->source);
    if (src->samples < 0 || (uint64_t)src->samples > windows)
        FAIL(ERR_CONFIG,
             "%lld validation samples of %lld tokens are asked of %s, which has %llu; ask for fewer, or 0 "
             "for all",
             (long long)src->samples, (long long)seq_len, src->files, (unsigned long long)windows);
    v->samples = src->samples ? (uint64_t)src->samples : windows;
    *out = v;
    v = NULL;
done:
    valid_close(v);
    return e;
}

int64_t valid_samples(const valid_set *v) { return (int64_t)v->samples; }

err *valid_read(valid_set *v, int64_t first, int64_t count, int32_t *rows) {
    err *e = NULL;
    uint64_t windows = token_source_windows(&v->source);
    for (int64_t i = 0; i < count; i++) {
        unsigned __int128 spread = (unsigned __int128)(uint64_t)(first + i) * windows;
        TRY(token_source_read(&v->source, (uint64_t)(spread / v->samples),
                              rows + i * (v->source.seq_len + 1)));
    }
done:
    return err_wrap(e, "validation sample");
}

void valid_close(valid_set *v) {
    if (!v) return;
    token_source_close(&v->source);
    free(v);
}
