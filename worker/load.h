// Reading logical tensors out of a checkpoint, whatever mesh wrote it.
#ifndef SOLAR_LOAD_H
#define SOLAR_LOAD_H

#include "manifest.h"
#include "table.h"

typedef struct want { // elements at..at+n-1, in row-major order, of a slice of a tensor
    const char *of;   // the tensor, as the manifest calls it
    int64_t shape[2]; // that it must have
    int64_t row0, rows, col0, cols;
    int64_t at, n;
    dtype to;  // F32 or BF16
    void *dst; // host memory, [n]
} want;

// Reads the ranges that hold what is wanted, and no others; each is checked. ERR_MISMATCH: damaged, or the
// pieces do not make up what is wanted; ERR_INPUT: not there, or of another shape. Not collective.
err *load_tensor(manifest *m, const want *w, int threads);

#endif
