// The manifest as it is written and read; manifest_read.c reads what it describes.
#include "manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "safetensors.h"
#include "xxh3.h"

enum { MANIFEST_LIMIT = 1 << 30 };

void sum_hex(const void *data, size_t bytes, char out[33]) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void sum_ranges(const void *data, size_t bytes, char *text) {
    text += strlen(text);
    for (size_t at = 0; at < bytes; at += RANGE, text += 32)
        sum_hex((const char *)data + at, bytes - at < RANGE ? bytes - at : RANGE, text);
}

// ---- writing

err *manifest_plain(const char *dir, const char *file, json_t **entry) {
    err *e = NULL;
    char *path = path_join(dir, file), *text = NULL, *sums = NULL;
    size_t bytes;
    TRY(read_file(path, MANIFEST_LIMIT, &text, &bytes));
    if (!(sums = calloc(bytes / RANGE + 2, 32))) FAIL(ERR_SYSTEM, "out of memory for the sums of %s", path);
    sum_ranges(text, bytes, sums);
    *entry = json_pack("{s:s, s:I, s:s}", "file", file, "bytes", (json_int_t)bytes, "sums", sums);
    if (!*entry) FAIL(ERR_INPUT, "the name of %s is not UTF-8: rename it", path);
done:
    free(sums);
    free(text);
    free(path);
    return e;
}

err *manifest_write(const char *dir, json_t *written, json_t *entries) {
    err *e = NULL;
    char sum[33], *path = path_join(dir, "solar/manifest.json"),
                  *sum_path = path_join(dir, "solar/manifest.xxh3");
    json_t *doc =
        json_pack("{s:i, s:O, s:O}", "format_version", MANIFEST_FORMAT, "written", written, "files", entries);
    char *text = doc ? json_dumps(doc, JSON_INDENT(1)) : NULL;
    if (!text) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    sum_hex(text, strlen(text), sum);
    TRY(write_file_atomic(path, text, strlen(text)));
    sum[32] = '\n';
    TRY(write_file_atomic(sum_path, sum, 33));
done:
    json_decref(doc);
    free(text);
    free(path);
    free(sum_path);
    return err_wrap(e, "writing the manifest");
}

// ---- reading

void manifest_close(manifest *m) {
    if (!m) return;
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].fd >= 0) close(m->file[i].fd);
        free(m->file[i].path);
    }
    free(m->file);
    free(m->paper);
    free(m->tensor);
    free(m->dir);
    json_decref(m->doc);
    free(m);
}

static err *read_document(const char *dir, json_t **out) {
    err *e = NULL;
    char *path = path_join(dir, "solar/manifest.json"), *sum_path = path_join(dir, "solar/manifest.xxh3");
    char *text = NULL, *sum = NULL, found[33];
    size_t bytes, sum_bytes;
    json_error_t je;
    TRY(read_file(path, MANIFEST_LIMIT, &text, &bytes));
    TRY(read_file(sum_path, 64, &sum, &sum_bytes));
    sum_hex(text, bytes, found);
    if (sum_bytes != 33 || memcmp(sum, found, 32) != 0 || sum[32] != '\n')
        FAIL(ERR_MISMATCH, "%s has checksum %s, manifest.xxh3 says %.33s", path, found, sum);
    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &je);
    if (!*out) FAIL(ERR_MISMATCH, "%s is not a manifest: %s", path, je.text);
    json_int_t format = json_integer_value(json_object_get(*out, "format_version"));
    if (format != MANIFEST_FORMAT)
        FAIL(ERR_CONFIG,
             "%s is of format version %lld, this program reads %d: go on with the version that wrote it, or "
             "begin a run with this checkpoint as model.base",
             path, (long long)format, MANIFEST_FORMAT);
done:
    free(text);
    free(sum);
    free(path);
    free(sum_path);
    return e;
}

static err *unsound(const char *where, const char *what) {
    return err_new(ERR_MISMATCH, "the manifest says nothing sound of %s: %s", where, what);
}

// A region's place and sums, which must fit each other and the file.
static err *parse_region(const manifest *m, json_t *doc, const char *what, region *out) {
    json_t *offset = json_object_get(doc, "offset"), *bytes = json_object_get(doc, "bytes");
    const char *sums = json_string_value(json_object_get(doc, "sums"));
    int file = m->files - 1;
    *out =
        (region){what, file, (uint64_t)json_integer_value(offset), (uint64_t)json_integer_value(bytes), sums};
    uint64_t whole = m->file[file].bytes;
    if (!sums || !json_is_integer(bytes) || out->offset > whole || out->bytes > whole - out->offset)
        return unsound(what, "bytes, offset or sums");
    if (strlen(sums) != (out->bytes + RANGE - 1) / RANGE * 32) return unsound(what, "the number of sums");
    return NULL;
}

static bool integers(json_t *list, int64_t *out, size_t n) {
    if (!json_is_array(list) || json_array_size(list) != n) return false;
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT64_C(1) << 48)
            return false;
        out[i] = json_integer_value(v);
    }
    return true;
}

static bool parse_dtype(json_t *v, dtype *out) {
    const char *name = json_string_value(v);
    for (dtype dt = DT_F32; name && dt <= DT_BF16; dt++)
        if (strcmp(name, st_dtype_name(dt)) == 0) {
            *out = dt;
            return true;
        }
    return false;
}

static bool parse_shape(json_t *v, stored *t) {
    int64_t shape[2] = {1, 1};
    if (!integers(v, shape, json_array_size(v) == 1 ? 1 : 2)) return false;
    t->shape[0] = shape[0];
    t->shape[1] = shape[1];
    return shape[0] < INT32_MAX && shape[1] < INT32_MAX;
}

static err *parse_tensor(manifest *m, json_t *doc) {
    stored *t = &m->tensor[m->tensors++];
    int64_t s[4] = {0}, r[2] = {0};
    *t = (stored){.name = json_string_value(json_object_get(doc, "name"))};
    if (!t->name) return unsound(m->file[m->files - 1].name, "a tensor without a name");
    err *e = parse_region(m, doc, t->name, &t->in);
    if (e) return e;
    t->of = t->name;
    if (!parse_dtype(json_object_get(doc, "dtype"), &t->dt) || !parse_shape(json_object_get(doc, "shape"), t))
        return unsound(t->name, "type or shape");
    s[1] = t->shape[0], s[3] = t->shape[1], r[1] = t->shape[0] * t->shape[1];
    if (json_object_get(doc, "of")) {
        t->of = json_string_value(json_object_get(doc, "of"));
        if (!t->of || !integers(json_object_get(doc, "slice"), s, 4) ||
            !integers(json_object_get(doc, "range"), r, 2))
            return unsound(t->name, "the piece that it is");
    }
    if (s[0] + s[1] > t->shape[0] || s[2] + s[3] > t->shape[1] || r[0] + r[1] > s[1] * s[3] ||
        (uint64_t)r[1] * dtype_size(t->dt) != t->in.bytes)
        return unsound(t->name, "shape, slice, range and bytes do not fit");
    t->row0 = s[0], t->rows = s[1], t->col0 = s[2], t->cols = s[3], t->at = r[0], t->n = r[1];
    return NULL;
}

// One more file, with its paper: the header of a safetensors file, or the whole of another.
static err *parse_file(manifest *m, json_t *doc) {
    err *e = NULL;
    const char *name = json_string_value(json_object_get(doc, "file"));
    json_t *tensors = json_object_get(doc, "tensors"), *t;
    size_t i;
    if (!name || !*name || *name == '/' || strstr(name, "..")) return unsound(m->dir, "the name of a file");
    m->file[m->files++] =
        (manifest_file){.path = path_join(m->dir, name),
                        .name = name,
                        .bytes = (uint64_t)json_integer_value(json_object_get(doc, "bytes")),
                        .fd = -1};
    TRY(parse_region(m, tensors ? json_object_get(doc, "header") : doc, name, &m->paper[m->papers++]));
    json_array_foreach(tensors, i, t) TRY(parse_tensor(m, t));
done:
    return e;
}

static int by_tensor(const void *a, const void *b) {
    return strcmp(((const stored *)a)->of, ((const stored *)b)->of);
}

err *manifest_open(const char *dir, manifest **out) {
    err *e = NULL;
    size_t i, tensors = 0;
    json_t *list, *doc;
    manifest *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return err_new(ERR_SYSTEM, "out of memory for a manifest");
    m->dir = strdup(dir);
    TRY(read_document(dir, &m->doc));
    list = json_object_get(m->doc, "files");
    json_array_foreach(list, i, doc) tensors += json_array_size(json_object_get(doc, "tensors"));
    m->file = calloc(json_array_size(list) + 1, sizeof *m->file);
    m->paper = calloc(json_array_size(list) + 1, sizeof *m->paper);
    m->tensor = calloc(tensors + 1, sizeof *m->tensor);
    if (!m->dir || !m->file || !m->paper || !m->tensor) FAIL(ERR_SYSTEM, "out of memory for a manifest");
    json_array_foreach(list, i, doc) TRY(parse_file(m, doc));
    qsort(m->tensor, (size_t)m->tensors, sizeof *m->tensor, by_tensor);
    *out = m;
    return NULL;
done:
    manifest_close(m);
    return e;
}

int manifest_find(const manifest *m, const char *of, const stored **first) {
    int low = 0, high = m->tensors, n = 0;
    while (low < high) { // the first that is not before `of`
        int mid = low + (high - low) / 2;
        if (strcmp(m->tensor[mid].of, of) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *first = m->tensor + low;
    while (low + n < m->tensors && strcmp(m->tensor[low + n].of, of) == 0) n++;
    return n;
}
