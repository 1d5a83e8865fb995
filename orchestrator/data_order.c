#include "data_order.h"

#include <stdio.h>

#include "config.h"
#include "stream.h"

err *print_order(const char *config_path, uint64_t from, uint64_t count) {
    err *e = NULL;
    config *c = NULL;
    stream *s = NULL;
    // where samples lie has nothing to do with the model, which may not be here
    const stream_check any = {.vocab = INT32_MAX, .allow_mismatch = true};
    TRY(config_load(config_path, NULL, 0, false, &c));
    TRY(stream_open(c->data.train, c->data.n_train, c->data.seq_len, (uint64_t)c->run.seed, c->data.shuffle,
                    &any, &s));
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
