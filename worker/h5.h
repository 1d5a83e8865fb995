// HDF5 as the rooms' code likes it: errors in our words and its, one caller at a time.
#ifndef SOLAR_H5_H
#define SOLAR_H5_H

#include <hdf5.h>
#include <stdint.h>

#include "err.h"

// The library keeps global state and is seldom built thread-safe, while the stream's reader thread and
// the main thread (validation) both read files: every use of it stands between these two. Locking also
// silences the library's own messages.
void h5_lock(void);
void h5_unlock(void);

// As err_new, with what HDF5 has to say about its last failure appended.
err *h5_err(err_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3), returns_nonnull));

// Attributes of the root group; ERR_INPUT when missing or of another type.
err *h5_read_int(hid_t file, const char *name, int64_t *out);
err *h5_read_text(hid_t file, const char *name, char *out, size_t capacity); // longer than fits: ERR_INPUT
err *h5_write_int(hid_t file, const char *name, int64_t value);
err *h5_write_text(hid_t file, const char *name, const char *text);

#endif
