// The header of a safetensors file: 8 bytes of length, then JSON of that length. Everything a hostile file
// can say is bounded before anything is allocated from it.
#include "st_header.h"

#include <stdlib.h>
#include <string.h>

#include "fsutil.h"

enum {
    MOST_HEADER = 100000000, // the format's own limit
    MOST_DEPTH = 8,          // a header needs 3
    MOST_VALUES = 2000000,   // commas: some 400,000 tensors
    MOST_TENSORS = 1000000,  // of a set, over all files
    MOST_NAME = 512,
};

static const struct {
    const char *name;
    dtype dt;
} dtypes[] = {{"F32", DT_F32}, {"BF16", DT_BF16}, {"F16", DT_F16}};

const char *st_dtype_name(dtype dt) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].dt == dt) return dtypes[i].name;
    return "?";
}

void st_list_free(st_list *list) {
    for (int i = 0; i < list->count; i++) free((char *)list->at[i].name);
    free(list->at);
    *list = (st_list){0};
}

static err *append(st_list *list, const st_tensor *t) {
    if (list->count == MOST_TENSORS)
        return err_new(ERR_INPUT, "more than %d tensors, expected fewer", MOST_TENSORS);
    if (list->count == list->capacity) {
        int room = list->capacity ? 2 * list->capacity : 64;
        st_tensor *more = realloc(list->at, (size_t)room * sizeof *more);
        if (!more) return err_new(ERR_SYSTEM, "no memory for %d tensors", room);
        list->at = more;
        list->capacity = room;
    }
    list->at[list->count] = *t;
    list->at[list->count].name = strdup(t->name);
    if (!list->at[list->count].name) return err_new(ERR_SYSTEM, "no memory for the name of a tensor");
    list->count++;
    return NULL;
}

err *st_check_extent(const char *text, size_t bytes) {
    bool quoted = false;
    int depth = 0, values = 0;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (c == '{' || c == '[') {
            if (++depth > MOST_DEPTH)
                return err_new(ERR_INPUT, "header nests deeper than %d at byte %zu, expected 3 levels",
                               MOST_DEPTH, i);
        } else if (c == '}' || c == ']')
            depth--;
        else if (c == ',' && ++values > MOST_VALUES)
            return err_new(ERR_INPUT, "JSON holds more than %d values", MOST_VALUES);
    }
    return NULL;
}

static err *read_length(int fd, uint64_t bytes, const char *path, uint64_t *length) {
    unsigned char raw[8];
    if (bytes < 8)
        return err_new(ERR_INPUT, "has %llu bytes, expected at least 8", (unsigned long long)bytes);
    err *e = pread_all(fd, raw, 8, 0, path);
    if (e) return e;
    *length = 0;
    for (int i = 7; i >= 0; i--) *length = *length << 8 | raw[i];
    if (*length > MOST_HEADER)
        return err_new(ERR_INPUT,
                       "says that its header has %llu bytes, expected at most %d: not a safetensors file?",
                       (unsigned long long)*length, MOST_HEADER);
    if (*length > bytes - 8)
        return err_new(ERR_INPUT,
                       "says that its header has %llu bytes, but the file ends after %llu: was it cut short?",
                       (unsigned long long)*length, (unsigned long long)bytes);
    return NULL;
}

static err *read_json(const char *path, int fd, uint64_t length, json_t **root) {
    json_error_t why;
    char *text = malloc((size_t)length + 1);
    if (!text) return err_new(ERR_SYSTEM, "no memory for a header of %llu bytes", (unsigned long long)length);
    err *e = pread_all(fd, text, (size_t)length, 8, path);
    if (!e && (length == 0 || text[0] != '{')) e = err_new(ERR_INPUT, "header does not start with '{'");
    if (!e) e = st_check_extent(text, (size_t)length);
    if (!e) {
        *root = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &why);
        if (!*root) e = err_new(ERR_INPUT, "header: %s (byte %d)", why.text, why.position);
    }
    free(text);
    return e;
}

// ---- one tensor

static err *parse_dtype(const json_t *v, dtype *dt) {
    const char *name = json_string_value(v);
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            *dt = dtypes[i].dt;
            return NULL;
        }
    return err_new(ERR_INPUT, "dtype %.40s, expected F32, F16 or BF16", name ? name : "that is not a string");
}

static err *parse_shape(const json_t *v, st_tensor *t, uint64_t *elements) {
    if (!json_is_array(v) || json_array_size(v) > 8)
        return err_new(ERR_INPUT, "shape: expected a list of at most 8 sizes");
    *elements = 1;
    t->ndim = (int)json_array_size(v);
    for (int i = 0; i < t->ndim; i++) {
        const json_t *size = json_array_get(v, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return err_new(ERR_INPUT, "shape[%d]: expected an integer of 0 or more", i);
        t->shape[i] = json_integer_value(size);
        if (__builtin_mul_overflow(*elements, (uint64_t)t->shape[i], elements))
            return err_new(ERR_INPUT, "shape: the product of its sizes overflows");
    }
    return NULL;
}

static err *parse_offsets(const json_t *v, uint64_t data, st_tensor *t) {
    const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(a) || !json_is_integer(b) || json_integer_value(a) < 0)
        return err_new(ERR_INPUT, "data_offsets: expected two integers of 0 or more");
    long long begin = json_integer_value(a), end = json_integer_value(b);
    if (begin > end || (uint64_t)end > data)
        return err_new(
            ERR_INPUT,
            "data_offsets: found [%lld, %lld] in a file with %llu bytes of data: was it cut short?", begin,
            end, (unsigned long long)data);
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    return NULL;
}

// `data`: bytes of data in the file. The offset is left relative to the data.
static err *parse_tensor(const json_t *v, uint64_t data, st_tensor *t) {
    uint64_t elements = 0, bytes = 0;
    const json_t *dt = json_object_get(v, "dtype"), *shape = json_object_get(v, "shape");
    const json_t *offsets = json_object_get(v, "data_offsets");
    if (!dt || !shape || !offsets || json_object_size(v) != 3)
        return err_new(ERR_INPUT, "expected an object of dtype, shape and data_offsets");
    err *e = parse_dtype(dt, &t->dt);
    if (!e) e = parse_shape(shape, t, &elements);
    if (!e) e = parse_offsets(offsets, data, t);
    if (e) return e;
    if (__builtin_mul_overflow(elements, (uint64_t)dtype_size(t->dt), &bytes) || bytes != t->bytes)
        return err_new(ERR_INPUT, "%llu elements of %s do not fill the %llu bytes of its data_offsets",
                       (unsigned long long)elements, st_dtype_name(t->dt), (unsigned long long)t->bytes);
    return NULL;
}

static err *parse_metadata(json_t *v, json_t **out) {
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(v)) return err_new(ERR_INPUT, "__metadata__: expected an object of strings");
    json_object_foreach(v, key, value) {
        if (!json_is_string(value)) return err_new(ERR_INPUT, "__metadata__: %.80s: expected a string", key);
    }
    *out = json_incref(v);
    return NULL;
}

static err *check_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > MOST_NAME)
        return err_new(ERR_INPUT, "tensor name of %zu bytes, expected 1 to %d", n, MOST_NAME);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 127)
            return err_new(ERR_INPUT, "tensor name %.80s holds control characters", name);
    return NULL;
}

static err *parse_root(json_t *root, uint64_t data, int file, st_list *list, json_t **metadata) {
    const char *name = NULL;
    json_t *v = NULL;
    json_object_foreach(root, name, v) {
        st_tensor t = {.name = name, .file = file};
        err *e = NULL;
        if (strcmp(name, "__metadata__") == 0) {
            e = parse_metadata(v, metadata);
            if (e) return e;
            continue;
        }
        e = check_name(name);
        if (e) return e;
        e = parse_tensor(v, data, &t);
        if (e) return err_wrap(e, "tensor %.80s", name);
        e = append(list, &t);
        if (e) return e;
    }
    return NULL;
}

// ---- the tensors together

static int by_offset(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; // empty ones stand in front
    return strcmp(x->name, y->name);
}

// The tensors must tile the data: no overlap, no hole, nothing behind the last.
static err *check_tiling(const st_tensor *t, int count, uint64_t data) {
    uint64_t end = 0;
    for (int i = 0; i < count; i++) {
        if (t[i].offset < end)
            return err_new(ERR_INPUT, "tensors %.80s and %.80s overlap at byte %llu of the data",
                           t[i - 1].name, t[i].name, (unsigned long long)t[i].offset);
        if (t[i].offset > end)
            return err_new(ERR_INPUT, "%llu bytes in front of tensor %.80s belong to no tensor",
                           (unsigned long long)(t[i].offset - end), t[i].name);
        end = t[i].offset + t[i].bytes;
    }
    if (end == data) return NULL;
    return err_new(ERR_INPUT, "%llu bytes behind the last tensor belong to no tensor",
                   (unsigned long long)(data - end));
}

static err *read_all(const char *path, int fd, uint64_t bytes, int file, st_list *list, json_t **metadata) {
    uint64_t length = 0;
    json_t *root = NULL;
    int first = list->count;
    err *e = read_length(fd, bytes, path, &length);
    if (!e) e = read_json(path, fd, length, &root);
    if (!e) e = parse_root(root, bytes - 8 - length, file, list, metadata);
    json_decref(root);
    if (e) return e;
    int count = list->count - first;
    st_tensor *t = count > 0 ? list->at + first : NULL;
    if (t) qsort(t, (size_t)count, sizeof *t, by_offset);
    e = check_tiling(t, count, bytes - 8 - length);
    for (int i = 0; i < count; i++) t[i].offset += 8 + length;
    return e;
}

err *st_header_read(const char *path, int fd, uint64_t bytes, int file, st_list *list, json_t **metadata) {
    *metadata = NULL;
    err *e = read_all(path, fd, bytes, file, list, metadata);
    if (e) {
        json_decref(*metadata);
        *metadata = NULL;
    }
    return err_wrap(e, "%s", path);
}
