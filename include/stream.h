// The order of training samples, and their delivery. A sample is seq_len+1 consecutive tokens of one file
// (windows start at multiples of seq_len, so consecutive windows share one token); a source is the windows
// of its files in the order of their names; a blend is weighted sources. Which sample stands at position i
// of a run depends on (seed, i) only: position = samples_consumed, the same on every mesh.
// Blend: the positions are cut into blocks of 65,536; each block deals its places among the sources in
// proportion to the weights (largest remainder, at least one place each where the weight is not 0), spread
// evenly. Within a source, pass k visits every window once, in the order of a keyed Feistel permutation of
// (seed, source, k). Where the blend changes, blocks begin anew, and every source goes on with the window
// that is next in its pass.
#ifndef SOLAR_STREAM_H
#define SOLAR_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "err.h"
#include "tokens.h"

typedef struct stream_check { // what is asked of the files, and of the samples made of them
    int64_t vocab;            // of the model: ids must be below; a file with a larger vocabulary is an error
    const char *tokenizer_sha256; // of the model's tokenizer; NULL: not known. A mismatch is ERR_INPUT
    bool allow_mismatch;
    bool mark_documents; // a token that begins a document (/documents of its file) comes as its complement,
                         // ~id
} stream_check;

// ---- training blend
typedef struct stream stream;
// Opens the files of the sources. `rows`: samples of one step that this rank delivers, at positions
// position + row0 .. position + row0 + rows-1, where position moves by `stride` (the global batch) a step.
// Not collective.
err *stream_open(const source_config *src, int n_src, int64_t seq_len, uint64_t seed, bool shuffle,
                 const stream_check *check, stream **out);
// From position `at` on, sources are blended by other weights ([n_src]; 0: not at all). Changes are told in
// ascending order, before stream_start. ERR_CONFIG: not behind the last change, or weights that are none.
err *stream_change_blend(stream *s, uint64_t at, const double *weight);
// Where position i comes from (for audits and tests).
typedef struct sample_place {
    int source;
    uint64_t pass, window; // window: index among the source's windows
    const char *file;
    uint64_t token; // first token of the window within the file
} sample_place;
err *stream_locate(const stream *s, uint64_t position, sample_place *out);
uint64_t stream_windows(const stream *s, int source);
uint64_t stream_source_tokens(const stream *s, int source);
// Starts the reader thread, which keeps the next step's rows ready. Call again to move elsewhere.
err *stream_start(stream *s, uint64_t position, int64_t row0, int64_t rows, int64_t stride);
// The next step's rows, [rows][seq_len+1], valid until the next call. Errors of the reader come here.
err *stream_next(stream *s, const int32_t **rows);
void stream_close(stream *s);

// ---- validation: the same samples every time: `samples` windows spread evenly over the files (0: all)
typedef struct valid_set valid_set;
err *valid_open(const source_config *src, int64_t seq_len, const stream_check *check, valid_set **out);
int64_t valid_samples(const valid_set *v);
err *valid_read(valid_set *v, int64_t first, int64_t count, int32_t *rows); // [count][seq_len+1]
void valid_close(valid_set *v);

#endif
