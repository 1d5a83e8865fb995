#include "text_input.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "text_files.h"
#include "text_source.h"

struct text_input {
    file_list files;
    int next_file;
    const text_file *file; // being read
    text_source *source;
    bool source_end;
    bool whole_done; // the one document of a plain file is delivered
    // buffer[begin, end) is read and not yet delivered; [begin, scan) has been cut into lines
    char *buffer;
    size_t capacity, begin, scan, end;
    uint64_t line; // that starts at scan
    uint64_t total;
    _Atomic uint64_t position; // asked for by threads that draw progress
    uint64_t position_base;    // of the files before this one
    text_decoder decoder;
};

enum { FIRST_BUFFER = 1 << 20 };

err *text_open(const char *const *paths, int n_paths, const text_options *options, text_input **out) {
    err *e = NULL;
    *out = NULL;
    text_input *in = calloc(1, sizeof *in);
    if (!in) return err_new(ERR_SYSTEM, "no memory");
    if (options) in->decoder.options = *options;
    for (int i = 0; i < n_paths; i++) TRY(files_add(&in->files, paths[i], in->decoder.options.format));
    if (in->files.count == 0)
        FAIL(ERR_INPUT,
             "no text found in %s: no file ends in .txt .text .jsonl .ndjson .json (or these with .gz or "
             ".zst), "
             "%d others lie there",
             n_paths ? paths[0] : "an empty list", in->files.skipped);
    in->buffer = malloc(FIRST_BUFFER);
    if (!in->buffer) FAIL(ERR_SYSTEM, "no memory");
    in->capacity = FIRST_BUFFER;
    for (int i = 0; i < in->files.count; i++) in->total += in->files.file[i].bytes;
    *out = in;
    in = NULL;
done:
    text_close(in);
    return e;
}

void text_close(text_input *in) {
    if (!in) return;
    source_close(in->source);
    files_free(&in->files);
    text_decoder_clear(&in->decoder);
    free(in->buffer);
    free(in);
}

static err *grow(text_input *in) {
    if (in->capacity >= TEXT_LIMIT)
        return err_new(
            ERR_INPUT,
            "%s:%llu: a line or document of more than %zu bytes; cut it up, or see whether the file is "
            "what its name says",
            in->file->path, (unsigned long long)in->line, TEXT_LIMIT);
    char *grown = realloc(in->buffer, 2 * in->capacity);
    if (!grown) return err_new(ERR_SYSTEM, "no memory for a document of %zu bytes", 2 * in->capacity);
    in->buffer = grown;
    in->capacity *= 2;
    return NULL;
}

static err *fill(text_input *in) {
    err *e = NULL;
    if (in->end == in->capacity && in->begin == 0) TRY(grow(in));
    if (in->end == in->capacity) {
        memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
        in->scan -= in->begin;
        in->end -= in->begin;
        in->begin = 0;
    }
    size_t got = 0;
    TRY(source_read(in->source, in->buffer + in->end, in->capacity - in->end, &got));
    in->end += got;
    in->source_end = got == 0;
    atomic_store_explicit(&in->position, in->position_base + source_position(in->source),
                          memory_order_relaxed);
done:
    return e;
}

static err *skip_mark(text_input *in) {
    err *e = NULL;
    while (in->end < 3 && !in->source_end) TRY(fill(in));
    if (in->end >= 3 && memcmp(in->buffer, "\xef\xbb\xbf", 3) == 0) in->begin = in->scan = 3;
done:
    return e;
}

static err *open_next(text_input *in, bool *end) {
    source_close(in->source);
    in->source = NULL;
    if (in->file) in->position_base += in->file->bytes;
    in->file = NULL;
    atomic_store_explicit(&in->position, in->position_base, memory_order_relaxed);
    *end = in->next_file == in->files.count;
    if (*end) return NULL;
    in->file = &in->files.file[in->next_file++];
    in->begin = in->scan = in->end = 0;
    in->line = 1;
    in->source_end = in->whole_done = false;
    err *e = source_open(in->file->path, &in->source);
    return e ? e : skip_mark(in);
}

// Scans one more line, of *length bytes without its line feed; *none when the file has no more.
static err *scan_line(text_input *in, size_t *length, bool *none) {
    err *e = NULL;
    size_t seen = 0;
    *none = false;
    for (;;) {
        const char *start = in->buffer + in->scan;
        const char *feed = memchr(start + seen, '\n', in->end - in->scan - seen);
        *length = feed ? (size_t)(feed - start) : in->end - in->scan;
        if (feed || in->source_end) {
            *none = !feed && *length == 0;
            in->scan += *length + (feed != NULL);
            in->line += !*none;
            return NULL;
        }
        seen = *length;
        TRY(fill(in));
    }
done:
    return e;
}

static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    return true;
}

// Blank lines in front of a record are passed over.
static err *read_json_line(text_input *in, size_t *bytes, bool *none) {
    err *e = NULL;
    do {
        in->begin = in->scan;
        TRY(scan_line(in, bytes, none));
    } while (!*none && is_blank(in->buffer + in->begin, *bytes));
done:
    return e;
}

static err *read_paragraphs(text_input *in, uint64_t *first_line, size_t *bytes, bool *none) {
    err *e = read_json_line(in, bytes, none);
    if (e || *none) return e;
    *first_line = in->line - 1;
    for (;;) {
        size_t n, before = in->scan - in->begin;
        bool over;
        TRY(scan_line(in, &n, &over));
        if (over || is_blank(in->buffer + in->begin + before, n)) break;
        *bytes = before + n;
    }
    *bytes -= in->buffer[in->begin + *bytes - 1] == '\r';
done:
    return e;
}

static err *read_whole(text_input *in, size_t *bytes, bool *none) {
    err *e = NULL;
    *none = in->whole_done;
    while (!in->source_end) TRY(fill(in));
    *bytes = in->end - in->begin;
    in->whole_done = true;
done:
    return e;
}

static err *read_in_file(text_input *in, text_record *out, bool *none) {
    err *e = NULL;
    uint64_t line = 1;
    if (in->file->json) {
        TRY(read_json_line(in, &out->bytes, none));
        line = in->line - 1;
    } else if (in->decoder.options.blank_lines) {
        TRY(read_paragraphs(in, &line, &out->bytes, none));
    } else {
        TRY(read_whole(in, &out->bytes, none));
    }
    out->data = in->buffer + in->begin;
    out->file = in->file->path;
    out->line = line;
    out->json = in->file->json;
done:
    return e;
}

err *text_read(text_input *in, text_record *out, bool *end) {
    err *e = NULL;
    *end = false;
    for (;;) {
        bool none = true;
        if (in->source) TRY(read_in_file(in, out, &none));
        if (!none) break;
        TRY(open_next(in, end));
        if (*end) break;
    }
done:
    return e;
}

err *text_next(text_input *in, const char **text, size_t *bytes, bool *end) {
    err *e = NULL;
    *text = NULL;
    *bytes = 0;
    do {
        text_record r;
        TRY(text_read(in, &r, end));
        if (!*end) TRY(text_decode(&in->decoder, &r, text, bytes));
    } while (!*end && !*text);
done:
    return e;
}

text_counts text_get_counts(const text_input *in) { return in->decoder.counts; }
int text_files(const text_input *in) { return in->files.count; }
int text_skipped_files(const text_input *in) { return in->files.skipped; }
uint64_t text_size(const text_input *in) { return in->total; }

uint64_t text_position(const text_input *in) {
    return atomic_load_explicit(&((text_input *)(uintptr_t)in)->position, memory_order_relaxed);
}
