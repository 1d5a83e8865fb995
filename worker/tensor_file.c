#include "tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "manifest.h"
#include "snapshot.h"

enum { NAME_BYTES = 256, ADVANCE = 32 << 20 }; // bytes after which the disk is told to begin

static bool is_whole(const save_piece *x) { return x->n == tensor_elements(x->row); }

// NAME.exp_avg, and where it is a piece also which one.
static void piece_name(const save_piece *x, char of[128], char out[NAME_BYTES]) {
    const slice *s = &x->s;
    snprintf(of, 128, "%s%s", x->row->name, save_kind_suffix(x->kind));
    if (is_whole(x))
        snprintf(out, NAME_BYTES, "%s", of);
    else
        snprintf(out, NAME_BYTES, "%s[%lld-%lld,%lld-%lld][%lld-%lld]", of, (long long)s->row0,
                 (long long)(s->row0 + s->rows - 1), (long long)s->col0, (long long)(s->col0 + s->cols - 1),
                 (long long)x->at, (long long)(x->at + x->n - 1));
}

// ---- what a checkpoint may hold

// The exponent of what is not finite is all ones.
static bool finite_words(const char *data, size_t bytes) {
    uint32_t bad = 0, x;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        memcpy(&x, data + i, 4);
        bad |= (uint32_t)((x & 0x7f800000u) == 0x7f800000u);
    }
    return !bad;
}

static bool finite_halves(const char *data, size_t bytes) {
    uint16_t bad = 0, x;
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        memcpy(&x, data + i, 2);
        bad |= (uint16_t)((x & 0x7f80u) == 0x7f80u);
    }
    return !bad;
}

static bool is_finite(dtype dt, const char *data, size_t bytes) {
    return dt == DT_F32 ? finite_words(data, bytes) : finite_halves(data, bytes);
}

// ---- the file

typedef struct open_file {
    const tensor_file *f;
    char *path, *buffer;
    int fd;
    uint64_t at, told; // end of what is written; up to where the disk has been told to begin
} open_file;

// Begins to write out what has gathered in memory, so that the sync at the end finds little left to do.
static void advance(open_file *o) {
    if (o->at - o->told < ADVANCE) return;
    sync_file_range(o->fd, (off_t)o->told, (off_t)(o->at - o->told), SYNC_FILE_RANGE_WRITE);
    o->told = o->at;
}

static err *put(open_file *o, const char *data, size_t bytes) {
    err *e = write_all(o->fd, data, bytes, o->path);
    o->at += bytes;
    atomic_fetch_add(o->f->written, bytes);
    if (!e) advance(o);
    return e;
}

static err *write_piece(open_file *o, const save_piece *x, char *sums) {
    const tensor_file *f = o->f;
    dtype dt = x->dt;
    err *e = NULL;
    for (size_t at = 0; !e && at < x->bytes; at += RANGE) {
        size_t n = x->bytes - at < RANGE ? x->bytes - at : RANGE;
        const char *data = snapshot_bytes(x, f->tp, dtype_size(dt), f->memory, at, n, o->buffer);
        if (!is_finite(dt, data, n))
            return err_new(ERR_NUMERIC,
                           "%s%s is not finite: it is not worth a checkpoint, the older ones stay",
                           x->row->name, save_kind_suffix(x->kind));
        sum_ranges(data, n, sums);
        e = put(o, data, n);
    }
    return e;
}

static json_t *describe(const save_piece *x, dtype dt, uint64_t offset, const char *sums) {
    char of[128], name[NAME_BYTES];
    piece_name(x, of, name);
    json_t *shape = json_pack("[I]", (json_int_t)x->row->shape[0]);
    if (x->row->ndim == 2) json_array_append_new(shape, json_integer(x->row->shape[1]));
    json_t *entry =
        json_pack("{s:s, s:s, s:o, s:I, s:I, s:s}", "name", name, "dtype", st_dtype_name(dt), "shape", shape,
                  "offset", (json_int_t)offset, "bytes", (json_int_t)x->bytes, "sums", sums);
    if (entry && !is_whole(x)) {
        json_object_set_new(entry, "of", json_string(of));
        json_object_set_new(entry, "slice",
                            json_pack("[I, I, I, I]", (json_int_t)x->s.row0, (json_int_t)x->s.rows,
                                      (json_int_t)x->s.col0, (json_int_t)x->s.cols));
        json_object_set_new(entry, "range", json_pack("[I, I]", (json_int_t)x->at, (json_int_t)x->n));
    }
    return entry;
}

static err *write_pieces(open_file *o, json_t *list) {
    err *e = NULL;
    for (int i = 0; !e && i < o->f->pieces; i++) {
        const save_piece *x = &o->f->piece[i];
        uint64_t offset = o->at;
        char *sums = calloc(x->bytes / RANGE + 2, 32);
        if (!sums) return err_new(ERR_SYSTEM, "out of memory for the sums of %s", x->row->name);
        e = write_piece(o, x, sums);
        if (!e && json_array_append_new(list, describe(x, x->dt, offset, sums)) != 0)
            e = err_new(ERR_SYSTEM, "out of memory for the manifest");
        free(sums);
    }
    return e;
}

static err *make_header(const tensor_file *f, char **header, size_t *bytes) {
    err *e = NULL;
    st_decl *decl = calloc((size_t)f->pieces, sizeof *decl);
    char(*name)[NAME_BYTES] = calloc((size_t)f->pieces, sizeof *name), of[128];
    if (!decl || !name) FAIL(ERR_SYSTEM, "out of memory for a header");
    for (int i = 0; i < f->pieces; i++) {
        const save_piece *x = &f->piece[i];
        piece_name(x, of, name[i]);
        decl[i] = (st_decl){.name = name[i], .dt = x->dt, .ndim = 1, .shape = {x->n}};
        if (!is_whole(x)) continue;
        decl[i].ndim = x->row->ndim;
        decl[i].shape[0] = x->row->shape[0];
        decl[i].shape[1] = x->row->shape[1];
    }
    TRY(st_header_make(decl, f->pieces, NULL, 0, header, bytes));
done:
    free(decl);
    free(name);
    return e;
}

static err *finish(open_file *o) {
    err *e = fsync(o->fd) == 0 ? NULL : err_errno(errno, "cannot sync %s", o->path);
    if (close(o->fd) != 0) e = err_first(e, err_errno(errno, "cannot close %s", o->path));
    o->fd = -1;
    return e;
}

static json_t *file_entry(const open_file *o, const char *header, size_t bytes, json_t *list) {
    char *sums = calloc(bytes / RANGE + 2, 32);
    if (!sums) return NULL;
    sum_ranges(header, bytes, sums);
    json_t *entry = json_pack("{s:s, s:I, s:{s:I, s:s}, s:O}", "file", o->f->name, "bytes", (json_int_t)o->at,
                              "header", "bytes", (json_int_t)bytes, "sums", sums, "tensors", list);
    free(sums);
    return entry;
}

err *tensor_file_write(const tensor_file *f, json_t **entry) {
    err *e = NULL;
    char *header = NULL;
    size_t bytes = 0;
    json_t *list = json_array();
    open_file o = {.f = f, .path = path_join(f->dir, f->name), .buffer = malloc(RANGE), .fd = -1};
    if (!o.buffer || !list) FAIL(ERR_SYSTEM, "out of memory for writing %s", o.path);
    TRY(make_header(f, &header, &bytes));
    o.fd = open(o.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o.fd < 0) TRY(err_errno(errno, "cannot create %s", o.path));
    TRY(put(&o, header, bytes));
    TRY(write_pieces(&o, list));
    TRY(finish(&o));
    if (!(*entry = file_entry(&o, header, bytes, list))) FAIL(ERR_SYSTEM, "out of memory for the manifest");
done:
    if (o.fd >= 0) close(o.fd);
    json_decref(list);
    free(header);
    free(o.buffer);
    free(o.path);
    return e;
}
