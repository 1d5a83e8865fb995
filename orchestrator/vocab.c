#include "vocab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encode.h"
#include "fsutil.h"
#include "tokenizer.h"

// The trainer sees sentences; longer pieces of text cost it much and teach it nothing more.
enum { LINE_BYTES = 4096 };

// Where to cut text that starts with a line: its length, at most LINE_BYTES, at a space if there is one.
static size_t line_length(const char *text, size_t bytes) {
    size_t limit = bytes < LINE_BYTES ? bytes : LINE_BYTES;
    const char *feed = memchr(text, '\n', limit);
    if (feed) return (size_t)(feed - text);
    if (limit == bytes) return bytes;
    for (size_t n = limit; n > LINE_BYTES / 2; n--)
        if (text[n] == ' ') return n;
    while (limit > 1 && ((unsigned char)text[limit] & 0xc0) == 0x80) limit--; // not inside a character
    return limit;
}

static err *write_lines(FILE *f, const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t n = line_length(text + at, bytes - at);
        if (fwrite(text + at, 1, n, f) != n || putc('\n', f) == EOF)
            return err_errno(errno, "cannot write the text to learn from");
        at += n;
        if (at < bytes && text[at] == '\n') at++;
    }
    return NULL;
}

static err *collect(text_input *in, const vocab_options *o, FILE *f, vocab_report *report) {
    err *e = NULL;
    // what is stored may be packed, so that this keeps too much: the limit below then ends it early
    double share = (double)o->most_bytes / ((double)text_size(in) + 1);
    uint64_t below = share >= 1 ? UINT64_MAX : (uint64_t)(share * 0x1p64);
    for (;;) {
        const char *text;
        size_t bytes;
        bool end;
        TRY(text_next(in, &text, &bytes, &end));
        if (end || report->bytes >= o->most_bytes) break;
        if (document_hash(o->seed, text, bytes) > below) continue;
        TRY(write_lines(f, text, bytes));
        report->documents++;
        report->bytes += bytes;
    }
    if (report->documents == 0) FAIL(ERR_INPUT, "no document to learn a vocabulary from");
done:
    return e;
}

err *vocab_train(text_input *in, const vocab_options *o, vocab_report *report) {
    err *e = NULL;
    char *path = NULL;
    FILE *f = NULL;
    *report = (vocab_report){0};
    if (!o->force && path_exists(o->output))
        return err_new(ERR_USAGE, "%s exists already; --force replaces it", o->output);
    if (asprintf(&path, "%s.text.%ld", o->output, (long)getpid()) < 0)
        return err_new(ERR_SYSTEM, "no memory");
    f = fopen(path, "wx");
    if (!f) TRY(err_errno(errno, "cannot create %s", path));
    TRY(collect(in, o, f, report));
    int rc = fclose(f);
    f = NULL;
    if (rc != 0) TRY(err_errno(errno, "cannot write %s", path));
    TRY(tokenizer_train(path, o->output, o->pieces));
done:
    if (f) fclose(f);
    unlink(path);
    free(path);
    return e;
}
