// Documents out of users' text: plain text and JSON lines, plain, .gz or .zst, one file or whole trees.
#ifndef SOLAR_TEXT_INPUT_H
#define SOLAR_TEXT_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

// A line or a document of more bytes than this is ERR_INPUT.
#define TEXT_LIMIT ((size_t)1 << 30)

typedef enum text_format {
    TEXT_BY_NAME, // .txt .text: plain; .jsonl .ndjson .json: JSON lines; each also with .gz or .zst behind
    TEXT_PLAIN,
    TEXT_JSONL,
} text_format;

typedef struct text_options {
    const char *field;  // of a JSON line; NULL: "text"
    bool strict;        // broken lines and invalid UTF-8 are ERR_INPUT ("file:line: ..."), not counts
    bool blank_lines;   // plain text: documents are separated by blank lines; else one document a file
    text_format format; // for every file named; in directories files of other names are skipped and counted
} text_options;

typedef struct text_counts {
    uint64_t documents, bytes; // delivered, bytes as delivered (valid UTF-8)
    uint64_t empty;            // empty documents, skipped
    uint64_t broken;           // JSON lines skipped: not JSON, no such field, or not a string
    uint64_t invalid_utf8;     // ill-formed sequences, each replaced by U+FFFD
} text_counts;

typedef struct text_input text_input;
// `paths`: files and directories; a directory is walked recursively, sorted by name, hidden files left
// out. Nothing that could be read is ERR_INPUT. options NULL: all defaults.
err *text_open(const char *const *paths, int n_paths, const text_options *options, text_input **out);
// The next document; *text is valid UTF-8 (it may hold NUL bytes; a NUL stands behind it) until the next
// call. At the end *end is true and *text NULL. A truncated or damaged archive is ERR_INPUT.
err *text_next(text_input *in, const char **text, size_t *bytes, bool *end);
text_counts text_get_counts(const text_input *in);
int text_files(const text_input *in);         // files to read
int text_skipped_files(const text_input *in); // in directories, of other names
uint64_t text_size(const text_input *in);     // of all files, as stored
uint64_t text_position(const text_input *in); // bytes read so far, as stored
void text_close(text_input *in);              // NULL is fine

// ---- in two halves, for pipelines: records are read by one thread and decoded by many.
typedef struct text_record {
    const char *data; // as in the file: a JSON line, or a plain document; valid until the next read
    size_t bytes;
    const char *file; // valid until text_close
    uint64_t line;    // of its first line, from 1
    bool json;
} text_record;
err *text_read(text_input *in, text_record *out, bool *end);

typedef struct text_decoder {
    text_options options;
    text_counts counts;
    char *clean; // scratch
    size_t clean_capacity;
    void *json; // of the last record
} text_decoder; // zero all but options to start
// *text NULL: nothing to deliver (empty or broken, counted). Else valid until the next call.
err *text_decode(text_decoder *d, const text_record *r, const char **text, size_t *bytes);
void text_decoder_clear(text_decoder *d);

#endif
