// Writing token files.
#include <errno.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "h5.h"
#include "tokens.h"

// Tokens a chunk: large enough to compress and to stream, small enough that a deflated file can be read
// in shuffled order at all.
enum { TOKEN_CHUNK = 1 << 17, DOCUMENT_CHUNK = 1 << 13 };

// A growing 1-D dataset behind a buffer of one chunk.
typedef struct column {
    hid_t set, memory_type;
    size_t width, chunk, filled;
    uint64_t written;
    char *buffer;
} column;

struct tokens_writer {
    char *path, *temporary;
    int64_t vocab;
    hid_t file;
    column tokens, documents;
};

static err *column_create(column *c, hid_t file, const char *name, hid_t stored, hid_t memory, size_t chunk,
                          int deflate) {
    err *e = NULL;
    hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk_size = chunk;
    hid_t space = H5Screate_simple(1, &none, &unlimited), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &chunk_size);
    H5Pset_obj_track_times(list, false); // equal tokens give equal files
    if (deflate > 0) {
        H5Pset_shuffle(list);
        H5Pset_deflate(list, (unsigned)deflate);
    }
    *c = (column){.memory_type = memory, .width = H5Tget_size(memory), .chunk = chunk};
    c->set = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (c->set < 0) TRY(h5_err(ERR_SYSTEM, "cannot make the dataset %s", name));
    c->buffer = malloc(chunk * c->width);
    if (!c->buffer) FAIL(ERR_SYSTEM, "no memory");
done:
    H5Pclose(list);
    H5Sclose(space);
    return e;
}

static err *column_flush(column *c) {
    err *e = NULL;
    hid_t space = -1, memory = -1;
    hsize_t start = c->written, n = c->filled, total = start + n;
    if (n == 0) return NULL;
    if (H5Dset_extent(c->set, &total) < 0) TRY(h5_err(ERR_SYSTEM, "cannot extend a dataset"));
    space = H5Dget_space(c->set);
    memory = H5Screate_simple(1, &n, NULL);
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &n, NULL) < 0 ||
        H5Dwrite(c->set, c->memory_type, memory, space, H5P_DEFAULT, c->buffer) < 0)
        TRY(h5_err(ERR_SYSTEM, "cannot write %llu elements: is the disk full?", (unsigned long long)n));
    c->written = total;
    c->filled = 0;
done:
    if (memory >= 0) H5Sclose(memory);
    if (space >= 0) H5Sclose(space);
    return e;
}

// False: something that was still in the library's cache could not be written.
static bool column_close(column *c) {
    bool good = c->set <= 0 || H5Dclose(c->set) >= 0;
    c->set = -1;
    free(c->buffer);
    c->buffer = NULL;
    return good;
}

static err *write_info(hid_t file, const tokens_info *info) {
    err *e = NULL;
    TRY(h5_write_int(file, "format_version", 1));
    TRY(h5_write_int(file, "vocab_size", info->vocab));
    TRY(h5_write_int(file, "eos_id", info->eos));
    TRY(h5_write_text(file, "tokenizer", info->tokenizer));
    TRY(h5_write_text(file, "tokenizer_sha256", info->sha256));
    TRY(h5_write_text(file, "source", info->source));
done:
    return e;
}

static err *create_file(tokens_writer *w) {
    err *e = NULL;
    hid_t list = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    // the chunk index of 1.10: a chunk's place in constant time, however long the file
    H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(list, false, true);
#endif
    w->file = H5Fcreate(w->temporary, H5F_ACC_TRUNC, creation, list);
    if (w->file < 0) e = h5_err(ERR_SYSTEM, "cannot create %s", w->temporary);
    H5Pclose(creation);
    H5Pclose(list);
    return e;
}

static char *temporary_name(const char *path) {
    char *name = NULL;
    return asprintf(&name, "%s.tmp.%ld", path, (long)getpid()) < 0 ? NULL : name;
}

err *tokens_create(const char *path, const tokens_info *info, int deflate, tokens_writer **out) {
    err *e = NULL;
    *out = NULL;
    tokens_writer *w = calloc(1, sizeof *w);
    if (!w) return err_new(ERR_SYSTEM, "no memory");
    bool narrow = info->vocab <= 65536;
    w->file = -1;
    w->vocab = info->vocab;
    h5_lock();
    w->path = strdup(path);
    w->temporary = temporary_name(path);
    if (!w->path || !w->temporary) FAIL(ERR_SYSTEM, "no memory");
    TRY(create_file(w));
    TRY(write_info(w->file, info));
    TRY(column_create(&w->tokens, w->file, "tokens", narrow ? H5T_STD_U16LE : H5T_STD_U32LE,
                      H5T_NATIVE_UINT32, TOKEN_CHUNK, deflate));
    TRY(column_create(&w->documents, w->file, "documents", H5T_STD_U64LE, H5T_NATIVE_UINT64, DOCUMENT_CHUNK,
                      deflate));
    *out = w;
    w = NULL;
done:
    h5_unlock();
    tokens_writer_abort(w);
    return err_wrap(e, "writing %s", path);
}

static err *flush_locked(column *c) {
    h5_lock();
    err *e = column_flush(c);
    h5_unlock();
    return e;
}

static err *append_tokens(column *c, const int32_t *id, uint64_t count) {
    err *e = NULL;
    while (count > 0) {
        size_t room = c->chunk - c->filled, n = count < room ? (size_t)count : room;
        memcpy(c->buffer + c->filled * c->width, id, n * c->width);
        c->filled += n;
        id += n;
        count -= n;
        if (c->filled == c->chunk) TRY(flush_locked(c));
    }
done:
    return e;
}

err *tokens_append(tokens_writer *w, const int32_t *id, uint64_t count) {
    err *e = NULL;
    uint64_t start = w->tokens.written + w->tokens.filled;
    column *d = &w->documents;
    if (count == 0) return NULL;
    for (uint64_t i = 0; i < count; i++)
        if (id[i] < 0 || id[i] >= w->vocab)
            FAIL(ERR_INPUT, "token id %d is outside the vocabulary of %lld ids", id[i], (long long)w->vocab);
    memcpy(d->buffer + d->filled++ * d->width, &start, d->width);
    if (d->filled == d->chunk) TRY(flush_locked(d));
    TRY(append_tokens(&w->tokens, id, count));
done:
    return err_wrap(e, "writing %s", w->path);
}

// Every one of these can be the call that meets a full disk.
static err *close_file(tokens_writer *w) {
    err *e = NULL;
    TRY(column_flush(&w->tokens));
    TRY(column_flush(&w->documents));
    bool good = H5Fflush(w->file, H5F_SCOPE_GLOBAL) >= 0;
    good = good && column_close(&w->tokens) && column_close(&w->documents);
    if (good) {
        good = H5Fclose(w->file) >= 0;
        w->file = -1;
    }
    if (!good) TRY(h5_err(ERR_SYSTEM, "cannot finish the file: is the disk full?"));
done:
    return e;
}

static err *publish(const tokens_writer *w) {
    err *e = NULL;
    char *copy = strdup(w->path);
    if (!copy) return err_new(ERR_SYSTEM, "no memory");
    TRY(fsync_path(w->temporary));
    if (rename(w->temporary, w->path) != 0) TRY(err_errno(errno, "cannot rename %s", w->temporary));
    TRY(fsync_path(dirname(copy)));
done:
    free(copy);
    return e;
}

err *tokens_writer_close(tokens_writer *w, uint64_t *tokens, uint64_t *documents) {
    h5_lock();
    err *e = close_file(w);
    h5_unlock();
    if (!e) e = publish(w);
    e = err_wrap(e, "writing %s", w->path);
    if (tokens) *tokens = w->tokens.written;
    if (documents) *documents = w->documents.written;
    tokens_writer_abort(w);
    return e;
}

void tokens_writer_abort(tokens_writer *w) {
    if (!w) return;
    h5_lock();
    column_close(&w->tokens);
    column_close(&w->documents);
    if (w->file >= 0) H5Fclose(w->file);
    h5_unlock();
    if (w->temporary) unlink(w->temporary); // gone already when published
    free(w->temporary);
    free(w->path);
    free(w);
}
