// Writing safetensors files, each byte hashed as it passes, and the index of several.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "st_set.h"
#include "xxh3.h"

enum { ALIGNMENT = 64, SCRATCH = 4 << 20 };

typedef struct piece {
    char *name;
    uint64_t bytes;
    char hash[33]; // "" until written
} piece;

struct st_writer {
    char *path;
    int fd;
    piece *piece;
    int count, current; // current: the first that is not complete
    uint64_t written;   // of the current one
    XXH3_state_t *hash;
    bool unhashed; // some of the current one was copied by the kernel
    void *scratch; // for copies that the kernel will not do; NULL until then
};

static void writer_free(st_writer *w) {
    for (int i = 0; w->piece && i < w->count; i++) free(w->piece[i].name);
    free(w->piece);
    free(w->scratch);
    if (w->hash) XXH3_freeState(w->hash);
    free(w->path);
    free(w);
}

void st_writer_abort(st_writer *w) {
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->path);
    }
    writer_free(w);
}

// ---- the header

static err *declared_bytes(const st_decl *d, uint64_t *bytes) {
    *bytes = dtype_size(d->dt);
    for (int i = 0; i < d->ndim; i++)
        if (d->shape[i] < 0 || __builtin_mul_overflow(*bytes, (uint64_t)d->shape[i], bytes))
            return err_new(ERR_RUNTIME, "tensor %s has an impossible shape", d->name);
    return NULL;
}

static json_t *entry(const st_decl *d, uint64_t begin, uint64_t end) {
    json_t *shape = json_array();
    for (int i = 0; i < d->ndim; i++) json_array_append_new(shape, json_integer(d->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", st_dtype_name(d->dt), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)end);
}

static err *add_metadata(json_t *root, const char *const (*meta)[2], int n_meta) {
    json_t *m = json_pack("{s:s}", "format", "pt");
    bool fine = m != NULL;
    for (int i = 0; i < n_meta && fine; i++)
        fine = json_object_set_new(m, meta[i][0], json_string(meta[i][1])) == 0;
    if (json_object_set_new(root, "__metadata__", m) == 0 && fine) return NULL;
    return err_new(ERR_RUNTIME, "metadata of a safetensors file: no memory, or not UTF-8");
}

static err *build_header(const st_decl *decl, int count, json_t *root) {
    uint64_t at = 0, bytes;
    for (int i = 0; i < count; i++) {
        err *e = declared_bytes(&decl[i], &bytes);
        if (e) return e;
        if (json_object_get(root, decl[i].name))
            return err_new(ERR_RUNTIME, "tensor %s is declared twice", decl[i].name);
        if (json_object_set_new(root, decl[i].name, entry(&decl[i], at, at + bytes)) != 0)
            return err_new(ERR_RUNTIME, "tensor %s: no memory, or a name that is not UTF-8", decl[i].name);
        at += bytes;
    }
    return NULL;
}

// Spaces behind the JSON put the data on a multiple of ALIGNMENT.
static err *format_header(const json_t *root, char **block, size_t *bytes) {
    char *text = json_dumps(root, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0,
           padded = (length + 8 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - 8;
    *block = text ? malloc(8 + padded) : NULL;
    *bytes = 8 + padded;
    if (*block) {
        for (int i = 0; i < 8; i++) (*block)[i] = (char)((uint64_t)padded >> (8 * i));
        memcpy(*block + 8, text, length);
        memset(*block + 8 + length, ' ', padded - length);
    }
    free(text);
    return *block ? NULL : err_new(ERR_SYSTEM, "no memory for a header");
}

err *st_header_make(const st_decl *decl, int count, const char *const (*meta)[2], int n_meta, char **block,
                    size_t *bytes) {
    json_t *root = json_object();
    err *e = root ? add_metadata(root, meta, n_meta) : err_new(ERR_SYSTEM, "no memory for a header");
    if (!e) e = build_header(decl, count, root);
    if (!e) e = format_header(root, block, bytes);
    json_decref(root);
    return e;
}

// ---- the data

// Ends every tensor that is complete: the current one, and empty ones behind it.
static void finish_pieces(st_writer *w) {
    while (w->current < w->count && w->written == w->piece[w->current].bytes) {
        XXH128_hash_t h = XXH3_128bits_digest(w->hash);
        if (!w->unhashed)
            snprintf(w->piece[w->current].hash, sizeof w->piece->hash, "%016llx%016llx",
                     (unsigned long long)h.high64, (unsigned long long)h.low64);
        XXH3_128bits_reset(w->hash);
        w->unhashed = false;
        w->written = 0;
        w->current++;
    }
}

static err *writer_new(const char *path, const st_decl *decl, int count, st_writer **out) {
    st_writer *w = calloc(1, sizeof *w);
    if (!w) return err_new(ERR_SYSTEM, "no memory to write %s", path);
    w->fd = -1;
    w->count = count;
    w->path = strdup(path);
    w->hash = XXH3_createState();
    w->piece = calloc((size_t)count + 1, sizeof *w->piece);
    bool fine = w->path && w->hash && w->piece && XXH3_128bits_reset(w->hash) == XXH_OK;
    for (int i = 0; fine && i < count; i++) fine = (w->piece[i].name = strdup(decl[i].name)) != NULL;
    err *e = NULL;
    for (int i = 0; fine && !e && i < count; i++) e = declared_bytes(&decl[i], &w->piece[i].bytes);
    if (fine && !e) {
        *out = w;
        return NULL;
    }
    writer_free(w);
    return err_first(e, err_new(ERR_SYSTEM, "no memory to write %s", path));
}

err *st_writer_open(const char *path, const st_decl *decl, int count, const char *const (*meta)[2],
                    int n_meta, st_writer **out) {
    err *e = NULL;
    st_writer *w = NULL;
    char *header = NULL;
    size_t bytes;
    TRY(writer_new(path, decl, count, &w));
    TRY(st_header_make(decl, count, meta, n_meta, &header, &bytes));
    w->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (w->fd < 0) TRY(err_errno(errno, "cannot create %s", path));
    TRY(write_all(w->fd, header, bytes, path));
    finish_pieces(w);
    *out = w;
    w = NULL;
done:
    st_writer_abort(w);
    free(header);
    return e;
}

err *st_write(st_writer *w, const void *data, uint64_t bytes) {
    const char *p = data;
    while (bytes > 0) {
        if (w->current == w->count) return err_new(ERR_RUNTIME, "%s: more data than declared", w->path);
        uint64_t left = w->piece[w->current].bytes - w->written, n = bytes < left ? bytes : left;
        err *e = write_all(w->fd, p, (size_t)n, w->path);
        if (e) return err_wrap(e, "tensor %s", w->piece[w->current].name);
        XXH3_128bits_update(w->hash, p, (size_t)n);
        w->written += n;
        p += n;
        bytes -= n;
        finish_pieces(w);
    }
    return NULL;
}

// Bytes of n that the kernel copied: 0 where the file systems do not allow it.
static uint64_t copy_in_kernel(st_writer *w, const st_set *s, const st_tensor *t, uint64_t offset,
                               uint64_t n) {
    off_t from = (off_t)(t->offset + offset);
    ssize_t copied = copy_file_range(s->file[t->file].fd, &from, w->fd, NULL, (size_t)n, 0);
    if (copied <= 0) return 0;
    w->unhashed = true;
    w->written += (uint64_t)copied;
    finish_pieces(w);
    return (uint64_t)copied;
}

static err *copy_by_hand(st_writer *w, const st_set *s, const st_tensor *t, uint64_t offset, uint64_t n) {
    if (!w->scratch) w->scratch = malloc(SCRATCH);
    if (!w->scratch) return err_new(ERR_SYSTEM, "no memory to write %s", w->path);
    err *e = st_read(s, t, offset, w->scratch, n);
    return e ? e : st_write(w, w->scratch, n);
}

err *st_write_from(st_writer *w, const st_set *s, const st_tensor *t, uint64_t offset, uint64_t bytes) {
    if (w->current == w->count || bytes > w->piece[w->current].bytes - w->written || offset > t->bytes ||
        bytes > t->bytes - offset)
        return err_new(ERR_RUNTIME, "%s: asked to copy %llu bytes of %s, more than there are or than fit",
                       w->path, (unsigned long long)bytes, t->name);
    for (uint64_t end = offset + bytes, n; offset < end; offset += n) {
        n = copy_in_kernel(w, s, t, offset, end - offset);
        if (n > 0) continue;
        n = end - offset < SCRATCH ? end - offset : SCRATCH;
        err *e = copy_by_hand(w, s, t, offset, n);
        if (e) return e;
    }
    return NULL;
}

const char *st_writer_hash(const st_writer *w, int i) { return w->piece[i].hash; }

err *st_writer_close(st_writer *w) {
    err *e = NULL;
    if (w->current < w->count)
        e = err_new(ERR_RUNTIME, "%s: tensor %s has %llu of its %llu bytes", w->path,
                    w->piece[w->current].name, (unsigned long long)w->written,
                    (unsigned long long)w->piece[w->current].bytes);
    if (!e && fsync(w->fd) != 0) e = err_errno(errno, "cannot sync %s", w->path);
    if (close(w->fd) != 0) e = err_first(e, err_errno(errno, "cannot close %s", w->path));
    if (e) unlink(w->path);
    writer_free(w);
    return e;
}

// ---- the index

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static err *map_files(const st_set *s, json_t *map, uint64_t *total) {
    for (int i = 0; i < st_count(s); i++) {
        const st_tensor *t = st_at(s, i);
        if (json_object_set_new(map, t->name, json_string(base_name(st_file_path(s, t->file)))) != 0)
            return err_new(ERR_SYSTEM, "no memory for an index");
        *total += t->bytes;
    }
    return NULL;
}

err *st_write_index(const char *dir, const char *const *files, int count) {
    err *e = NULL;
    st_set *s = NULL;
    uint64_t total = 0;
    char *text = NULL, *path = path_join(dir, "model.safetensors.index.json");
    char **paths = calloc((size_t)count + 1, sizeof *paths);
    json_t *map = json_object(), *root = NULL;
    if (!paths || !map) FAIL(ERR_SYSTEM, "no memory for an index");
    for (int i = 0; i < count; i++) paths[i] = path_join(dir, files[i]);
    TRY(st_open_files((const char *const *)paths, count, &s));
    TRY(map_files(s, map, &total));
    root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (!text) FAIL(ERR_SYSTEM, "no memory for an index");
    TRY(write_file_atomic(path, text, strlen(text)));
done:
    for (int i = 0; paths && i < count; i++) free(paths[i]);
    free(paths);
    free(text);
    free(path);
    json_decref(map);
    json_decref(root);
    st_close(s);
    return e;
}
