// safetensors files (8-byte little-endian header length, JSON header, data) and Hugging Face model
// directories of one file or many with an index. The reader is bounded and safe on hostile files.
#ifndef SOLAR_SAFETENSORS_H
#define SOLAR_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "err.h"

typedef struct st_tensor {
    const char *name;
    dtype dt;
    int ndim; // at most 8; 0 for a scalar
    int64_t shape[8];
    int file;        // index into the set's files
    uint64_t offset; // of the first byte, from the start of the file
    uint64_t bytes;
} st_tensor;

typedef struct st_set st_set;

// One file, or a directory (model.safetensors.index.json, else model.safetensors). Headers are read and
// checked whole: header longer than the file or 100 MB, depth, duplicate names, unknown dtype, shape x
// dtype != length, offsets out of range, overlapping or with holes, an index that disagrees with the
// files: ERR_INPUT naming file and tensor. Not collective.
err *st_open(const char *path, st_set **out);
// These files as one set, checked in the same way.
err *st_open_files(const char *const *paths, int count, st_set **out);
void st_close(st_set *s);
int st_count(const st_set *s);
const st_tensor *st_at(const st_set *s, int i); // in order of file, then offset
const st_tensor *st_find(const st_set *s, const char *name);
const char *st_file_path(const st_set *s, int file);
int st_file_count(const st_set *s);
const char *st_dtype_name(dtype dt); // "F32", "BF16", "F16"
// The `__metadata__` value of a key in any file, or NULL.
const char *st_metadata(const st_set *s, const char *key);

// Reads `bytes` bytes of a tensor from byte `offset` of it. A short read is ERR_SYSTEM.
err *st_read(const st_set *s, const st_tensor *t, uint64_t offset, void *dst, uint64_t bytes);
// Reads rows row0.. and columns col0.. of a matrix (or a vector seen as [n,1]) into dst, packed and
// converted to `to` (F32 or BF16).
err *st_read_slice(const st_set *s, const st_tensor *t, int64_t row0, int64_t rows, int64_t col0,
                   int64_t cols, dtype to, void *dst);

// n elements; to is F32 or BF16.
void st_convert(dtype to, void *to_data, dtype from, const void *from_data, int64_t n);

// ---- writing: the header is fixed when the file is opened, data follows in order.
typedef struct st_decl {
    const char *name;
    dtype dt;
    int ndim;
    int64_t shape[8];
} st_decl;

// The bytes in front of the data: {"format": "pt"}, the n_meta pairs and the tensors, one behind the other
// from a multiple of 64 bytes on. The caller frees *block.
err *st_header_make(const st_decl *decl, int count, const char *const (*meta)[2], int n_meta, char **block,
                    size_t *bytes);

typedef struct st_writer st_writer;
// Creates `path` (must not exist) and writes the header; data offsets are 64-byte aligned at the start
// of the data. metadata: {"format": "pt"} is always written, and so are the n_meta pairs.
err *st_writer_open(const char *path, const st_decl *decl, int count, const char *const (*meta)[2],
                    int n_meta, st_writer **out);
// Appends the next bytes; tensors follow each other in the order declared.
err *st_write(st_writer *w, const void *data, uint64_t bytes);
// Appends bytes offset .. offset+bytes-1 of a tensor of other files. The kernel copies where it can, which is
// as fast as cp, and what it copies is not hashed: the tensor's st_writer_hash is "" then.
err *st_write_from(st_writer *w, const st_set *s, const st_tensor *t, uint64_t offset, uint64_t bytes);
// XXH3-128 (hex, 32 digits) of the bytes of tensor i, once they are all written.
const char *st_writer_hash(const st_writer *w, int i);
// Checks that everything declared was written, fsyncs, closes. Frees w in any case.
err *st_writer_close(st_writer *w);
void st_writer_abort(st_writer *w); // closes and unlinks; NULL is fine
// Writes model.safetensors.index.json into dir from the safetensors files named.
err *st_write_index(const char *dir, const char *const *files, int count);

#endif
