// The order of a run's samples: opened from its config, told in words that a resume compares, and printed.
#include "data_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

err *open_blend(const config *c, const stream_check *check, stream **out) {
    err *e = NULL;
    stream *s = NULL;
    TRY(stream_open(c->data.train, c->data.n_train, c->data.seq_len, (uint64_t)c->run.seed, c->data.shuffle,
                    check, &s));
    for (int i = 0; i < c->data.n_blend; i++)
        TRY(stream_change_blend(s, (uint64_t)c->data.blend[i].at, c->data.blend[i].weights));
    *out = s;
    s = NULL;
done:
    stream_close(s);
    return e;
}

// ---- the fingerprint

static const char stretch_mark[] = "; from sample ";

// Sources without a share are left out: they may come later without a change of what was.
static void put_source(FILE *f, const config *c, const stream *s, int i, double weight) {
    if (weight == 0) return;
    fprintf(f, ", source %d %s weight %.17g with %llu windows, %llu tokens", i, c->data.train[i].name, weight,
            (unsigned long long)stream_windows(s, i), (unsigned long long)stream_source_tokens(s, i));
}

char *data_order(const config *c, const stream *s) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fprintf(f, "seed %lld, seq_len %lld, shuffle %s%s0", (long long)c->run.seed, (long long)c->data.seq_len,
            c->data.shuffle ? "on" : "off", stretch_mark);
    for (int i = 0; i < c->data.n_train; i++) put_source(f, c, s, i, c->data.train[i].weight);
    for (int k = 0; k < c->data.n_blend; k++) {
        fprintf(f, "%s%lld", stretch_mark, (long long)c->data.blend[k].at);
        for (int i = 0; i < c->data.n_train; i++) put_source(f, c, s, i, c->data.blend[k].weights[i]);
    }
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

// Length of the text up to the first stretch that begins at `position` or later.
static size_t past_length(const char *text, uint64_t position) {
    const char *at = text;
    while ((at = strstr(at, stretch_mark))) {
        if (strtoull(at + strlen(stretch_mark), NULL, 10) >= position) return (size_t)(at - text);
        at++;
    }
    return strlen(text);
}

bool same_past(const char *a, const char *b, uint64_t position) {
    size_t n = past_length(a, position);
    return n == past_length(b, position) && memcmp(a, b, n) == 0;
}

// ---- printing

err *print_order(const char *config_path, uint64_t from, uint64_t count) {
    err *e = NULL;
    config *c = NULL;
    stream *s = NULL;
    // where samples lie has nothing to do with the model, which may not be here
    const stream_check any = {.vocab = INT32_MAX, .allow_mismatch = true};
    TRY(config_load(config_path, NULL, 0, false, &c));
    TRY(open_blend(c, &any, &s));
    for (uint64_t i = from; i - from < count; i++) {
        sample_place p;
        TRY(stream_locate(s, i, &p));
        printf("%llu %s pass %llu window %llu %s token %llu\n", (unsigned long long)i,
               c->data.train[p.source].name, (unsigned long long)p.pass, (unsigned long long)p.window, p.file,
               (unsigned long long)p.token);
    }
done:
    stream_close(s);
    config_free(c);
    return e;
}
