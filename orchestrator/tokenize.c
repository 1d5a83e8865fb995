#include "tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encode.h"
#include "fsutil.h"
#include "log.h"
#include "tokens.h"

typedef struct run {
    const tokenize_options *o;
    text_input *in;
    encoder *encoder;
    tokens_writer *train, *valid;
    uint64_t valid_below; // documents whose hash is below this are for validation
    progress progress;
    double start;
    tokenize_report *report;
} run;

static err *check_output(const char *path, bool force) {
    if (!path || force || !path_exists(path)) return NULL;
    return err_new(ERR_USAGE, "%s exists already; --force replaces it", path);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// The hashes of all documents, in their order; caller frees.
static err *hash_all(const tokenize_options *o, uint64_t **hash, size_t *count) {
    err *e = NULL;
    text_input *in = NULL;
    size_t capacity = 0;
    TRY(text_open(o->input, o->inputs, &o->text, &in));
    for (;;) {
        const char *text;
        size_t bytes;
        bool end;
        TRY(text_next(in, &text, &bytes, &end));
        if (end) break;
        if (*count == capacity) {
            capacity = 2 * capacity + 4096;
            uint64_t *grown = realloc(*hash, capacity * sizeof *grown);
            if (!grown) FAIL(ERR_SYSTEM, "no memory for the hashes of %zu documents", capacity);
            *hash = grown;
        }
        (*hash)[(*count)++] = document_hash(o->seed, text, bytes);
    }
done:
    text_close(in);
    return e;
}

// The hash below which the asked-for number of documents lie.
static err *find_limit(const tokenize_options *o, uint64_t *below) {
    err *e = NULL;
    uint64_t *hash = NULL;
    size_t count = 0;
    TRY(hash_all(o, &hash, &count));
    if ((uint64_t)o->valid_docs >= count)
        FAIL(ERR_USAGE, "--valid-docs %lld leaves nothing to train on: there are %zu documents",
             (long long)o->valid_docs, count);
    qsort(hash, count, sizeof *hash, by_value);
    *below = hash[o->valid_docs];
done:
    free(hash);
    return e;
}

static err *set_limit(run *r) {
    const tokenize_options *o = r->o;
    r->valid_below = 0;
    if (!o->valid) return NULL;
    if (o->valid_docs > 0) return find_limit(o, &r->valid_below);
    r->valid_below = (uint64_t)(o->valid_fraction * 0x1p64);
    return NULL;
}

static void name_source(char *out, size_t room, const tokenize_options *o) {
    int n = snprintf(out, room, "%s", o->input[0]);
    if (n < 0 || (size_t)n >= room) { // the end of a path says most
        size_t length = strlen(o->input[0]);
        snprintf(out, room, "...%s", o->input[0] + length - (room - 4));
    } else if (o->inputs > 1) {
        snprintf(out + n, room - (size_t)n, " and %d more", o->inputs - 1);
    }
}

static err *open_outputs(run *r, const tokenizer *t) {
    err *e = NULL;
    tokens_info info = {.vocab = tokenizer_vocab(t), .eos = tokenizer_eos(t)};
    snprintf(info.tokenizer, sizeof info.tokenizer, "%s", tokenizer_name(t));
    snprintf(info.sha256, sizeof info.sha256, "%s", tokenizer_sha256(t));
    name_source(info.source, sizeof info.source, r->o);
    TRY(tokens_create(r->o->out, &info, r->o->deflate, &r->train));
    if (r->o->valid) TRY(tokens_create(r->o->valid, &info, r->o->deflate, &r->valid));
done:
    return e;
}

static void show_progress(run *r, bool last) {
    if (!r->o->progress) return;
    double seconds = now_seconds() - r->start;
    double total = (double)text_size(r->in), at = (double)text_position(r->in);
    char done[32], all[32], left[32];
    format_bytes(done, at);
    format_bytes(all, total);
    format_time(left, last ? seconds : seconds * (total - at) / at);
    const tokenize_report *p = r->report;
    double text = (double)(p->train.bytes + p->valid.bytes) / 1e6 / seconds;
    progress_line(&r->progress, last, "%s of %s, %.1f MB of text/s, %.2f M tokens, %s %s", done, all, text,
                  (double)(p->train.tokens + p->valid.tokens) / 1e6, left, last ? "in all" : "left");
}

static err *write_document(run *r, const encoded *d) {
    bool valid = d->hash < r->valid_below;
    tokenize_part *part = valid ? &r->report->valid : &r->report->train;
    part->documents++;
    part->tokens += d->count;
    part->bytes += d->bytes;
    return tokens_append(valid ? r->valid : r->train, d->id, d->count);
}

static err *encode_all(run *r, const encode_options *options) {
    err *e = NULL;
    TRY(encode_open(r->in, options, &r->encoder));
    for (uint64_t n = 1;; n++) {
        encoded d;
        bool end;
        TRY(encode_next(r->encoder, &d, &end));
        if (end) break;
        TRY(write_document(r, &d));
        if (n % 64 == 0) show_progress(r, false);
    }
    show_progress(r, true);
done:
    if (r->encoder) r->report->counts = encode_counts(r->encoder);
    return e;
}

static err *check_parts(const run *r) {
    const tokenize_report *p = r->report;
    if (p->train.documents + p->valid.documents == 0)
        return err_new(ERR_INPUT, "no document in %d files (%llu broken lines, %llu empty documents)",
                       p->files, (unsigned long long)p->counts.broken, (unsigned long long)p->counts.empty);
    if (r->o->valid && (p->valid.documents == 0 || p->train.documents == 0))
        return err_new(ERR_USAGE,
                       "the split leaves %llu documents for training and %llu for validation; give another "
                       "--valid-fraction, or --valid-docs",
                       (unsigned long long)p->train.documents, (unsigned long long)p->valid.documents);
    return NULL;
}

// Closes both, whatever happens to the first.
static err *publish(run *r) {
    tokens_writer *train = r->train, *valid = r->valid;
    r->train = r->valid = NULL;
    err *e = valid ? tokens_writer_close(valid, NULL, NULL) : NULL;
    if (e) {
        tokens_writer_abort(train);
        return e;
    }
    return tokens_writer_close(train, NULL, NULL);
}

err *tokenize_files(const tokenize_options *o, const tokenizer *t, tokenize_report *report) {
    err *e = NULL;
    run r = {.o = o, .start = now_seconds(), .report = report};
    const encode_options options = {
        .tokenizer = t, .text = o->text, .bos = o->bos, .eos = true, .seed = o->seed, .threads = o->threads};
    *report = (tokenize_report){0};
    progress_start(&r.progress);
    TRY(check_output(o->out, o->force));
    TRY(check_output(o->valid, o->force));
    TRY(text_open(o->input, o->inputs, &o->text, &r.in));
    report->files = text_files(r.in);
    report->skipped_files = text_skipped_files(r.in);
    TRY(set_limit(&r));
    TRY(open_outputs(&r, t));
    TRY(encode_all(&r, &options));
    TRY(check_parts(&r));
    TRY(publish(&r));
    report->seconds = now_seconds() - r.start;
done:
    encode_close(r.encoder);
    tokens_writer_abort(r.train);
    tokens_writer_abort(r.valid);
    text_close(r.in);
    return e;
}
