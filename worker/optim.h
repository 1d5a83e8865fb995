// The optimizer's state of a weight: how it lies in the device's memory, how a copy of that is read, and what
// stands in files.
//
// kind      on the device                                           in files
// moments   fp32                                                    NAME.exp_avg, NAME.exp_avg_sq: F32
//           bf16                                                    the same names: BF16
//           codes, and what they are shares of (moments.h)          the same names: F32, what they mean
// master    the weight, bf16, and the other halves (float_split)    NAME.master: F32
//
// So a file is read in the same way whatever wrote it, and what is read back into the form that it was kept
// in goes on with the same bits.
#ifndef SOLAR_OPTIM_H
#define SOLAR_OPTIM_H

#include "part.h"

// In the order in which they are saved.
typedef enum optim_kind { OPTIM_M, OPTIM_V, OPTIM_MASTER, OPTIM_KINDS } optim_kind;
int optim_kinds(dtype dt);              // of weights of dt: 2, or 3 when there is a master apart from them
const char *optim_suffix(optim_kind k); // ".exp_avg", ...
dtype optim_dtype(const part_shape *s, optim_kind k); // in files

// A copy of the state of a weight's own elements in host memory, as it lay on the device.
typedef struct optim_copy {
    optim_kind kind;
    moments_form form;
    int64_t n, lead; // elements; of the first block
    size_t bytes;
} optim_copy;
optim_copy optim_copy_of(const part *p, const weight *w, optim_kind k);
// Fills copy.bytes bytes at `to`, pinned memory, by copies on the current queue. Not collective, as all here.
void optim_take(const part *p, const weight *w, const optim_copy *c, char *to);
// Elements first .. first+n-1 of the copy at `from` as they stand in files: a pointer into it, or to
// `buffer`.
const char *optim_read(const optim_copy *c, const char *from, int64_t first, int64_t n, char *buffer);
// Puts a moment (OPTIM_M or OPTIM_V) of the weight's own elements, in host memory; overwritten.
err *optim_put(const part *p, const weight *w, optim_kind k, float *values);

#endif
