#include "manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "fsutil.h"

enum { BUFFER = 4 << 20, MANIFEST_LIMIT = 256 << 20, FORMAT = 1 };

static void hex(XXH128_hash_t h, char out[33]) {
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

json_t *manifest_tensors(const char *file, const st_writer *w, const st_decl *decl, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "name", decl[i].name, "xxh3", st_writer_hash(w, i)));
    return json_pack("{s:s, s:o}", "file", file, "tensors", list);
}

// Checksum of the first `bytes` bytes of an open file.
static err *hash_bytes(int fd, const char *path, uint64_t bytes, char out[33]) {
    err *e = NULL;
    XXH3_state_t *state = XXH3_createState();
    char *buffer = malloc(BUFFER);
    if (!state || !buffer) FAIL(ERR_SYSTEM, "out of memory for a checksum");
    XXH3_128bits_reset(state);
    for (uint64_t at = 0; at < bytes; at += BUFFER) {
        size_t n = bytes - at < BUFFER ? (size_t)(bytes - at) : BUFFER;
        TRY(pread_all(fd, buffer, n, at, path));
        XXH3_128bits_update(state, buffer, n);
    }
    hex(XXH3_128bits_digest(state), out);
done:
    free(buffer);
    XXH3_freeState(state);
    return e;
}

static err *hash_file(const char *path, uint64_t *bytes, char out[33]) {
    int fd = -1;
    err *e = open_input(path, &fd, bytes);
    if (!e) e = hash_bytes(fd, path, *bytes, out);
    if (fd >= 0) close(fd);
    return e;
}

// A safetensors header is a length of 8 bytes, little-endian, and as many bytes of JSON. Transformers reads
// things there that the tensors' own checksums do not cover.
static err *hash_header(const char *path, uint64_t *bytes, char out[33]) {
    err *e = NULL;
    int fd = -1;
    unsigned char head[8];
    uint64_t length = 0;
    TRY(open_input(path, &fd, bytes));
    if (*bytes < sizeof head) FAIL(ERR_MISMATCH, "%s is too short for a header", path);
    TRY(pread_all(fd, head, sizeof head, 0, path));
    for (int i = 7; i >= 0; i--) length = length << 8 | head[i];
    if (length > *bytes - sizeof head)
        FAIL(ERR_MISMATCH, "%s is damaged: its header is longer than the file", path);
    TRY(hash_bytes(fd, path, sizeof head + length, out));
done:
    if (fd >= 0) close(fd);
    return e;
}

err *manifest_header(const char *dir, json_t *entry) {
    uint64_t bytes;
    char sum[33], *path = path_join(dir, json_string_value(json_object_get(entry, "file")));
    err *e = hash_header(path, &bytes, sum);
    if (!e) json_object_set_new(entry, "bytes", json_integer((json_int_t)bytes));
    if (!e) json_object_set_new(entry, "header_xxh3", json_string(sum));
    free(path);
    return e;
}

err *manifest_file(const char *dir, const char *file, json_t **entry) {
    uint64_t bytes;
    char sum[33], *path = path_join(dir, file);
    err *e = hash_file(path, &bytes, sum);
    if (!e) *entry = json_pack("{s:s, s:I, s:s}", "file", file, "bytes", (json_int_t)bytes, "xxh3", sum);
    free(path);
    return e;
}

err *manifest_write(const char *dir, json_t *entries) {
    err *e = NULL;
    char sum[34], *path = path_join(dir, "solar/manifest.json"),
                  *sum_path = path_join(dir, "solar/manifest.xxh3");
    json_t *doc = json_pack("{s:i, s:O}", "format_version", FORMAT, "files", entries);
    char *text = doc ? json_dumps(doc, JSON_INDENT(1)) : NULL;
    if (!text) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    hex(XXH3_128bits(text, strlen(text)), sum);
    TRY(write_file_atomic(path, text, strlen(text)));
    TRY(write_file_atomic(sum_path, strcat(sum, "\n"), 33));
done:
    json_decref(doc);
    free(text);
    free(path);
    free(sum_path);
    return err_wrap(e, "writing the manifest");
}

err *manifest_read(const char *dir, json_t **entries) {
    err *e = NULL;
    char *path = path_join(dir, "solar/manifest.json"), *sum_path = path_join(dir, "solar/manifest.xxh3");
    char *text = NULL, *sum = NULL, found[33];
    size_t bytes, sum_bytes;
    json_t *doc = NULL;
    json_error_t je;
    *entries = NULL;
    TRY(read_file(path, MANIFEST_LIMIT, &text, &bytes));
    TRY(read_file(sum_path, 64, &sum, &sum_bytes));
    hex(XXH3_128bits(text, bytes), found);
    if (sum_bytes != 33 || memcmp(sum, found, 32) != 0 || sum[32] != '\n')
        FAIL(ERR_MISMATCH, "%s has checksum %s, manifest.xxh3 says %.33s", path, found, sum);
    doc = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &je);
    if (!doc || !json_is_array(json_object_get(doc, "files")))
        FAIL(ERR_MISMATCH, "%s is not a manifest: %s", path, doc ? "no list of files" : je.text);
    if (json_integer_value(json_object_get(doc, "format_version")) != FORMAT)
        FAIL(ERR_CONFIG, "%s is of another format version than %d, which this program reads", path, FORMAT);
    *entries = json_incref(json_object_get(doc, "files"));
done:
    json_decref(doc);
    free(text);
    free(sum);
    free(path);
    free(sum_path);
    return e;
}

static err *expect(const char *what, const char *name, const char *found, json_t *entry, const char *key) {
    const char *want = json_string_value(json_object_get(entry, key));
    if (want && strcmp(want, found) == 0) return NULL;
    return err_new(ERR_MISMATCH, "%s %s is damaged: its checksum is %s, the manifest says %s", what, name,
                   found, want ? want : "nothing");
}

static err *check_tensor(const st_set *set, json_t *entry, char *buffer) {
    err *e = NULL;
    const char *name = json_string_value(json_object_get(entry, "name"));
    const st_tensor *t = name ? st_find(set, name) : NULL;
    XXH3_state_t *state = XXH3_createState();
    char sum[33];
    if (!t) FAIL(ERR_MISMATCH, "%s holds no tensor %s", st_file_path(set, 0), name ? name : "(unnamed)");
    if (!state) FAIL(ERR_SYSTEM, "out of memory for a checksum");
    XXH3_128bits_reset(state);
    for (uint64_t at = 0; at < t->bytes; at += BUFFER) {
        uint64_t n = t->bytes - at < BUFFER ? t->bytes - at : BUFFER;
        TRY(st_read(set, t, at, buffer, n));
        XXH3_128bits_update(state, buffer, n);
    }
    hex(XXH3_128bits_digest(state), sum);
    TRY(expect("tensor", name, sum, entry, "xxh3"));
done:
    XXH3_freeState(state);
    return e;
}

static err *check_header(const char *path, json_t *file) {
    uint64_t bytes;
    char sum[33];
    err *e = hash_header(path, &bytes, sum);
    return e ? e : expect("the header of", path, sum, file, "header_xxh3");
}

// Header and tensors of one file that fall to this rank; *item counts over the whole checkpoint.
static err *check_tensors(const char *path, json_t *file, int rank, int world, size_t *item) {
    err *e = NULL;
    st_set *set = NULL;
    json_t *entry, *list = json_object_get(file, "tensors");
    size_t i;
    char *buffer = malloc(BUFFER);
    if (!buffer) FAIL(ERR_SYSTEM, "out of memory for a checksum");
    if ((*item)++ % (size_t)world == (size_t)rank) TRY(check_header(path, file));
    TRY(st_open(path, &set));
    if ((size_t)st_count(set) != json_array_size(list))
        FAIL(ERR_MISMATCH, "%s holds %d tensors, the manifest says %zu", path, st_count(set),
             json_array_size(list));
    json_array_foreach(list, i, entry) {
        if ((*item)++ % (size_t)world == (size_t)rank) TRY(check_tensor(set, entry, buffer));
    }
done:
    st_close(set);
    free(buffer);
    return err_wrap(e, "%s", path);
}

static err *check_whole(const char *path, json_t *entry) {
    uint64_t bytes;
    char sum[33];
    err *e = hash_file(path, &bytes, sum);
    return e ? e : expect("file", path, sum, entry, "xxh3");
}

err *manifest_check(const char *dir, json_t *entries, int rank, int world) {
    err *e = NULL;
    json_t *entry;
    size_t i, item = 0;
    char *path = NULL;
    json_array_foreach(entries, i, entry) {
        const char *file = json_string_value(json_object_get(entry, "file"));
        if (!file || strstr(file, "..")) FAIL(ERR_MISMATCH, "the manifest of %s names no sound file", dir);
        free(path);
        path = path_join(dir, file);
        if (json_object_get(entry, "tensors"))
            TRY(check_tensors(path, entry, rank, world, &item));
        else if (item++ % (size_t)world == (size_t)rank)
            TRY(check_whole(path, entry));
    }
done:
    free(path);
    return e;
}
