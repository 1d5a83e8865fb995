#include "h5.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Guards a library that is itself one global; it holds no state of ours.
static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

// After a write has failed (a full disk), HDF5 1.10 crashes in its own clean-up at exit. Nothing is lost
// without it: every file is closed by whoever opened it.
static void open_library(void) { H5dont_atexit(); }

void h5_lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    pthread_mutex_lock(&library);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void h5_unlock(void) { pthread_mutex_unlock(&library); }

static herr_t innermost(unsigned n, const H5E_error2_t *what, void *text) {
    if (n == 0) snprintf(text, 200, "%s", what->desc ? what->desc : "");
    return 0;
}

err *h5_err(err_code code, const char *fmt, ...) {
    char ours[600], theirs[200] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ours, sizeof ours, fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, theirs);
    H5Eclear2(H5E_DEFAULT);
    for (char *p = theirs; *p; p++) // a message is one line
        if (*p == '\n') *p = ' ';
    return theirs[0] ? err_new(code, "%s (HDF5: %s)", ours, theirs) : err_new(code, "%s", ours);
}

static err *open_attribute(hid_t file, const char *name, H5T_class_t want, hid_t *attr, hid_t *type) {
    err *e = NULL;
    hid_t space = -1;
    *attr = *type = -1;
    if (H5Aexists(file, name) <= 0)
        FAIL(ERR_INPUT, "the attribute %s is missing; was the file written by `solar tokenize`?", name);
    *attr = H5Aopen(file, name, H5P_DEFAULT);
    if (*attr < 0) TRY(h5_err(ERR_INPUT, "the attribute %s cannot be opened", name));
    *type = H5Aget_type(*attr);
    space = H5Aget_space(*attr);
    if (*type < 0 || space < 0) TRY(h5_err(ERR_INPUT, "the attribute %s cannot be read", name));
    if (H5Tget_class(*type) != want || H5Sget_simple_extent_npoints(space) != 1)
        FAIL(ERR_INPUT, "the attribute %s is not %s", name,
             want == H5T_STRING ? "one string" : "one integer");
done:
    if (space >= 0) H5Sclose(space);
    return e;
}

static void close_attribute(hid_t attr, hid_t type) {
    if (type >= 0) H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
}

err *h5_read_int(hid_t file, const char *name, int64_t *out) {
    err *e = NULL;
    hid_t attr = -1, type = -1;
    TRY(open_attribute(file, name, H5T_INTEGER, &attr, &type));
    if (H5Aread(attr, H5T_NATIVE_INT64, out) < 0)
        TRY(h5_err(ERR_INPUT, "the attribute %s cannot be read", name));
done:
    close_attribute(attr, type);
    return e;
}

// Reads the string, of fixed or variable length, into *text (malloc'ed, NUL behind).
static err *read_string(hid_t attr, hid_t type, const char *name, size_t limit, char **text) {
    err *e = NULL;
    char *theirs = NULL;
    hid_t memory = -1;
    bool variable = H5Tis_variable_str(type) > 0;
    size_t n = variable ? 0 : H5Tget_size(type);
    // what is stored cannot be longer than its storage: said before anything of that size is allocated
    if (n > limit || (!variable && n == 0))
        FAIL(ERR_INPUT, "the attribute %s has %zu bytes, at most %zu are expected", name, n, limit);
    *text = calloc(1, limit + 1);
    memory = H5Tcopy(type);
    if (!*text || memory < 0) FAIL(ERR_SYSTEM, "no memory");
    if (H5Aread(attr, memory, variable ? (void *)&theirs : *text) < 0)
        TRY(h5_err(ERR_INPUT, "the attribute %s cannot be read", name));
    if (theirs && strlen(theirs) > limit)
        FAIL(ERR_INPUT, "the attribute %s has %zu bytes, at most %zu are expected", name, strlen(theirs),
             limit);
    if (theirs) memcpy(*text, theirs, strlen(theirs));
done:
    if (theirs) H5free_memory(theirs);
    if (memory >= 0) H5Tclose(memory);
    return e;
}

err *h5_read_text(hid_t file, const char *name, char *out, size_t capacity) {
    err *e = NULL;
    char *text = NULL;
    hid_t attr = -1, type = -1;
    TRY(open_attribute(file, name, H5T_STRING, &attr, &type));
    TRY(read_string(attr, type, name, capacity - 1, &text));
    memcpy(out, text, strlen(text) + 1);
done:
    free(text);
    close_attribute(attr, type);
    return e;
}

static err *write_attribute(hid_t file, const char *name, hid_t stored, hid_t memory, const void *value) {
    err *e = NULL;
    hid_t space = H5Screate(H5S_SCALAR), attr = -1;
    attr = H5Acreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, memory, value) < 0)
        TRY(h5_err(ERR_SYSTEM, "cannot write the attribute %s", name));
done:
    if (attr >= 0) H5Aclose(attr);
    if (space >= 0) H5Sclose(space);
    return e;
}

err *h5_write_int(hid_t file, const char *name, int64_t value) {
    return write_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

// Of fixed length: HDF5 1.10 reads strings of variable length out of a heap that it trusts, and a damaged one
// makes it write past its own buffers.
err *h5_write_text(hid_t file, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, text[0] ? strlen(text) : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    err *e = write_attribute(file, name, type, type, text);
    H5Tclose(type);
    return e;
}
