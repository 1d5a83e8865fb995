// The manifest of a checkpoint: every file, and of every safetensors file the tensors, with an XXH3-128 of
// every range of RANGE bytes. A range is the unit in which a checkpoint is read and checked.
//
//   {"format_version": 2, "written": {"ranks", "data", "pipeline", "tensor", "precision", "host", "time"},
//    "files": [{"file", "bytes", "sums"},                                  a plain file
//              {"file", "bytes", "header": {"bytes", "sums"}, "tensors": [
//                {"name", "dtype", "shape", "offset", "bytes", "sums",     offset: in the file
//                 "of", "slice": [row0, rows, col0, cols], "range": [at, n]}]}]}
//
// "of", "slice", "range": a piece, elements at..at+n-1, in row-major order, of that slice of the tensor named
// by "of", whose shape is "shape". Without them the entry is the whole tensor. "sums": 32 hex digits a range,
// in one string. manifest.xxh3 holds the sum of the manifest itself.
#ifndef SOLAR_MANIFEST_H
#define SOLAR_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "dtype.h"
#include "err.h"

enum { MANIFEST_FORMAT = 2, RANGE = 4 << 20 };

typedef struct region { // bytes of one file, with their sums
    const char *what;   // for messages
    int file;
    uint64_t offset, bytes;
    const char *sums;
} region;

typedef struct stored { // one entry of a safetensors file
    region in;
    const char *name, *of; // of: the tensor; name itself when it is whole
    dtype dt;
    int64_t shape[2];               // of the whole tensor
    int64_t row0, rows, col0, cols; // the slice
    int64_t at, n;                  // the elements of it
} stored;

typedef struct manifest_file {
    char *path;
    const char *name;
    uint64_t bytes;
    int fd; // -1: not open
} manifest_file;

typedef struct manifest {
    json_t *doc; // "written" is in there
    char *dir;
    manifest_file *file;
    int files;
    region *paper; // headers and plain files
    int papers;
    stored *tensor; // sorted by `of`
    int tensors;
} manifest;

void sum_hex(const void *data, size_t bytes, char out[33]);
// Appends the sums of the ranges of `bytes` bytes to text, which has room for 32 digits each and a NUL.
void sum_ranges(const void *data, size_t bytes, char *text);

// An entry for a plain file, from what lies on the disk.
err *manifest_plain(const char *dir, const char *file, json_t **entry);
// Writes DIR/solar/manifest.json and manifest.xxh3, synced. Borrows both.
err *manifest_write(const char *dir, json_t *written, json_t *entries);

// Reads and checks the manifest itself. ERR_CONFIG: of another format version. Not collective.
err *manifest_open(const char *dir, manifest **out);
void manifest_close(manifest *m);
// The entries of a tensor: *first and as many as are returned follow each other.
int manifest_find(const manifest *m, const char *of, const stored **first);

// ---- reading ranges, several at a time
typedef struct range {
    const region *in;
    uint64_t at; // in the region, a multiple of RANGE
} range;
// `bytes` bytes from byte `at` of a range on. Several threads call it at once, each for other ranges.
typedef struct range_use {
    // Takes them; NULL: they are only checked.
    void (*take)(void *context, const range *r, size_t at, const char *data, size_t bytes);
    // Where they are to be read to, all of them as they are, without being taken; NULL: nowhere. May be NULL.
    char *(*place)(void *context, const range *r, size_t at, size_t bytes);
    void *context;
} range_use;
// Reads and checks n ranges with `threads` threads and hands them on, in any order, portion by portion. Only
// when NULL is returned was what was handed on whole. ERR_MISMATCH: damaged; ERR_INPUT: a file is missing;
// ERR_SYSTEM: could not be told.
err *manifest_read(manifest *m, const range *list, int64_t n, int threads, const range_use *use);

enum { CHECK_PAPERS = 1, CHECK_TENSORS = 2 };
// Checks ranges rank, rank+world, ... of headers and plain files, of tensors, or of both, and the sizes of
// the files that they are in. *checked (or NULL) gets the bytes. Not collective.
err *manifest_check(manifest *m, unsigned what, int rank, int world, int threads, uint64_t *checked);

#endif
