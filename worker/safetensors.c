// Sets of safetensors files: one file, several, or a model directory with its index.
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "st_set.h"

enum { MOST_FILES = 100000, MOST_INDEX_BYTES = 100000000 };

void st_close(st_set *s) {
    if (!s) return;
    for (int i = 0; i < s->files; i++) {
        if (s->file[i].fd >= 0) close(s->file[i].fd);
        json_decref(s->file[i].metadata);
        free(s->file[i].path);
    }
    st_list_free(&s->tensors);
    free(s->named);
    free(s->file);
    free(s);
}

static err *set_new(int files, st_set **out) {
    st_set *s = calloc(1, sizeof *s);
    if (s) s->file = calloc((size_t)files, sizeof *s->file);
    if (!s || !s->file) {
        free(s);
        return err_new(ERR_SYSTEM, "no memory for %d files", files);
    }
    *out = s;
    return NULL;
}

// Opens one more file and takes in its header.
static err *add_file(st_set *s, const char *path) {
    st_file *f = &s->file[s->files];
    uint64_t bytes = 0;
    err *e = open_input(path, &f->fd, &bytes);
    if (e) return e;
    f->path = strdup(path);
    s->files++;
    if (!f->path) return err_new(ERR_SYSTEM, "no memory for a path");
    return st_header_read(path, f->fd, bytes, s->files - 1, &s->tensors, &f->metadata);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const st_tensor *const *)a)->name, (*(const st_tensor *const *)b)->name);
}

// Sorts by name; a name in two files is an error.
static err *finish(st_set *s) {
    size_t n = (size_t)s->tensors.count;
    s->named = malloc((n + 1) * sizeof *s->named);
    if (!s->named) return err_new(ERR_SYSTEM, "no memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) s->named[i] = &s->tensors.at[i];
    qsort(s->named, n, sizeof *s->named, by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(s->named[i - 1]->name, s->named[i]->name) == 0)
            return err_new(ERR_INPUT, "tensor %.80s is in both %s and %s, expected it once",
                           s->named[i]->name, s->file[s->named[i - 1]->file].path,
                           s->file[s->named[i]->file].path);
    return NULL;
}

err *st_open_files(const char *const *paths, int count, st_set **out) {
    st_set *s = NULL;
    if (count < 1 || count > MOST_FILES)
        return err_new(ERR_INPUT, "%d files, expected 1 to %d", count, MOST_FILES);
    err *e = set_new(count, &s);
    for (int i = 0; i < count && !e; i++) e = add_file(s, paths[i]);
    if (!e) e = finish(s);
    if (e)
        st_close(s);
    else
        *out = s;
    return e;
}

// ---- a directory with an index

typedef struct names {
    const char **at; // borrowed from the index document
    int count;
} names;

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// A file of the index must lie in the directory itself.
static err *check_file_name(const char *tensor, const char *name) {
    if (!name) return err_new(ERR_INPUT, "weight_map: %.80s: expected the name of a file", tensor);
    const char *end = strrchr(name, '.');
    if (*name && *name != '.' && !strchr(name, '/') && end && strcmp(end, ".safetensors") == 0) return NULL;
    return err_new(
        ERR_INPUT,
        "weight_map: %.80s: found \"%.80s\", expected the name of a .safetensors file in the directory",
        tensor, name);
}

// The distinct files of the weight map, sorted.
static err *list_files(const json_t *map, names *files) {
    const char *tensor = NULL;
    json_t *v = NULL;
    files->at = malloc((json_object_size(map) + 1) * sizeof *files->at);
    if (!files->at) return err_new(ERR_SYSTEM, "no memory for an index");
    json_object_foreach((json_t *)map, tensor, v) {
        err *e = check_file_name(tensor, json_string_value(v));
        if (e) return e;
        files->at[files->count++] = json_string_value(v);
    }
    qsort(files->at, (size_t)files->count, sizeof *files->at, by_text);
    int kept = 0;
    for (int i = 0; i < files->count; i++)
        if (i == 0 || strcmp(files->at[i], files->at[kept - 1]) != 0) files->at[kept++] = files->at[i];
    files->count = kept;
    return kept > 0 ? NULL : err_new(ERR_INPUT, "weight_map names no file");
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// The map and the files must say the same of every tensor.
static err *check_map(const st_set *s, const json_t *map) {
    const char *tensor = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)map, tensor, v) {
        const st_tensor *t = st_find(s, tensor);
        if (!t) return err_new(ERR_INPUT, "tensor %.80s is not in %s", tensor, json_string_value(v));
        if (strcmp(base_name(s->file[t->file].path), json_string_value(v)) != 0)
            return err_new(ERR_INPUT, "tensor %.80s is in %s, the index says %s", tensor,
                           s->file[t->file].path, json_string_value(v));
    }
    for (int i = 0; i < s->tensors.count; i++)
        if (!json_object_get(map, s->tensors.at[i].name))
            return err_new(ERR_INPUT, "tensor %.80s of %s is not in the index", s->tensors.at[i].name,
                           s->file[s->tensors.at[i].file].path);
    return NULL;
}

static err *open_mapped(const char *dir, const json_t *map, st_set **out) {
    names files = {0};
    char **paths = NULL;
    st_set *s = NULL;
    err *e = list_files(map, &files);
    if (!e && !(paths = calloc((size_t)files.count, sizeof *paths)))
        e = err_new(ERR_SYSTEM, "no memory for an index");
    for (int i = 0; !e && i < files.count; i++) paths[i] = path_join(dir, files.at[i]);
    if (!e) e = st_open_files((const char *const *)paths, files.count, &s);
    if (!e) e = check_map(s, map);
    if (e)
        st_close(s);
    else
        *out = s;
    for (int i = 0; paths && i < files.count; i++) free(paths[i]);
    free(paths);
    free(files.at);
    return e;
}

static err *open_index(const char *dir, const char *path, st_set **out) {
    err *e = NULL;
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    json_error_t why;
    TRY(read_file(path, MOST_INDEX_BYTES, &text, &bytes));
    TRY(err_wrap(st_check_extent(text, bytes), "%s", path));
    root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root) FAIL(ERR_INPUT, "%s:%d:%d: %s", path, why.line, why.column, why.text);
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) FAIL(ERR_INPUT, "%s: found no weight_map, expected an object", path);
    TRY(err_wrap(open_mapped(dir, map, out), "%s", path));
done:
    json_decref(root);
    free(text);
    return e;
}

// An index next to a single file that it does not name: which of the two is the model?
static err *check_one_model(const char *dir, const st_set *s, const char *single) {
    for (int i = 0; i < s->files; i++)
        if (strcmp(base_name(s->file[i].path), base_name(single)) == 0) return NULL;
    return err_new(
        ERR_INPUT,
        "%s holds both model.safetensors and an index of other files: remove the one that is not the model",
        dir);
}

static err *open_dir(const char *dir, st_set **out) {
    err *e = NULL;
    st_set *s = NULL;
    char *index = path_join(dir, "model.safetensors.index.json"),
         *single = path_join(dir, "model.safetensors");
    bool has_index = path_exists(index), has_single = path_exists(single);
    if (!has_index && !has_single)
        FAIL(ERR_INPUT,
             "%s holds neither model.safetensors.index.json nor model.safetensors: only safetensors models "
             "are read",
             dir);
    TRY(has_index ? open_index(dir, index, &s) : st_open_files((const char *[]){single}, 1, &s));
    if (has_index && has_single) TRY(check_one_model(dir, s, single));
    *out = s;
    s = NULL;
done:
    st_close(s);
    free(index);
    free(single);
    return e;
}

err *st_open(const char *path, st_set **out) {
    return is_dir(path) ? open_dir(path, out) : st_open_files((const char *[]){path}, 1, out);
}

// ---- looking things up

int st_count(const st_set *s) { return s->tensors.count; }

const st_tensor *st_at(const st_set *s, int i) { return &s->tensors.at[i]; }

static int name_against(const void *key, const void *t) {
    return strcmp(key, (*(const st_tensor *const *)t)->name);
}

const st_tensor *st_find(const st_set *s, const char *name) {
    const st_tensor **t = bsearch(name, s->named, (size_t)s->tensors.count, sizeof *s->named, name_against);
    return t ? *t : NULL;
}

const char *st_file_path(const st_set *s, int file) { return s->file[file].path; }

int st_file_count(const st_set *s) { return s->files; }

const char *st_metadata(const st_set *s, const char *key) {
    for (int i = 0; i < s->files; i++) {
        const char *v = json_string_value(json_object_get(s->file[i].metadata, key));
        if (v) return v;
    }
    return NULL;
}
