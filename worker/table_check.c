// Do the files of a model hold the tensors of the table, the whole table and nothing but the table?
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "table.h"

static void shape_text(char out[64], int ndim, const int64_t *shape) {
    size_t n = (size_t)snprintf(out, 64, "[");
    for (int i = 0; i < ndim && n < 44; i++)
        n += (size_t)snprintf(out + n, 64 - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(out + n, 64 - n, "]");
}

static bool same_shape(const tensor_row *r, const st_tensor *t) {
    if (r->ndim != t->ndim || r->shape[0] != t->shape[0]) return false;
    return r->ndim == 1 || r->shape[1] == t->shape[1];
}

static err *check_row(const tensor_row *r, const char *name, const st_set *files) {
    const st_tensor *t = st_find(files, name);
    char found[64], expected[64];
    if (!t)
        return err_new(ERR_INPUT, "%s: tensor %s is missing%s", st_file_path(files, 0), name,
                       r->role == R_HEAD ? "; expected it, as config.json does not say tie_word_embeddings"
                                         : "");
    if (same_shape(r, t)) return NULL;
    shape_text(found, t->ndim, t->shape);
    shape_text(expected, r->ndim, r->shape);
    return err_new(ERR_INPUT, "%s: tensor %s: found shape %s, expected %s from config.json",
                   st_file_path(files, t->file), name, found, expected);
}

// "model.layers.K.rest": K and rest, or false.
static bool split_layer(const char *name, long *layer, const char **rest) {
    static const char head[] = "model.layers.";
    if (strncmp(name, head, sizeof head - 1) != 0 || !isdigit((unsigned char)name[sizeof head - 1]))
        return false;
    char *end = NULL;
    *layer = strtol(name + sizeof head - 1, &end, 10);
    if (*end != '.') return false;
    char plain[32];
    int n = snprintf(plain, sizeof plain, "%ld", *layer); // "007" is no layer
    *rest = end + 1;
    return end - name == (long)sizeof head - 1 + n;
}

// A tensor of a base layer that the plan leaves out: one that some other layer has too.
static bool left_out(const table *t, const char *name) {
    long layer = 0, other = 0;
    const char *rest = NULL, *kind = NULL;
    if (!split_layer(name, &layer, &rest) || layer >= t->base_layers) return false;
    for (int i = 0; i < t->count && t->row[i].layer <= 0; i++)
        if (split_layer(t->row[i].name, &other, &kind) && strcmp(kind, rest) == 0) return true;
    return false;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// Written by some tools although the embedding serves as the head.
static bool tied_head(const table *t, const st_tensor *extra) {
    return t->tied && strcmp(extra->name, "lm_head.weight") == 0 && same_shape(&t->row[0], extra);
}

static err *check_extra(const table *t, const st_set *files, const st_tensor *extra, bool donor_names) {
    if (ends_with(extra->name, ".rotary_emb.inv_freq")) return NULL; // a table that old versions saved
    if (donor_names && left_out(t, extra->name)) return NULL;
    if (tied_head(t, extra)) {
        log_warn("%s: lm_head.weight is ignored: config.json ties the head to the embedding",
                 st_file_path(files, extra->file));
        return NULL;
    }
    return err_new(ERR_INPUT, "%s: tensor %.80s is not part of the model that config.json describes",
                   st_file_path(files, extra->file), extra->name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

err *table_check_files(const table *t, const st_set *files, bool donor_names) {
    err *e = NULL;
    const char **names = malloc((size_t)t->count * sizeof *names);
    if (!names) return err_new(ERR_SYSTEM, "no memory to check %d tensors", t->count);
    for (int i = 0; i < t->count; i++) {
        names[i] = donor_names ? t->row[i].donor : t->row[i].name;
        TRY(check_row(&t->row[i], names[i], files));
    }
    qsort(names, (size_t)t->count, sizeof *names, by_text);
    for (int i = 0; i < st_count(files); i++) {
        const st_tensor *found = st_at(files, i);
        if (bsearch(&found->name, names, (size_t)t->count, sizeof *names, by_text)) continue;
        TRY(check_extra(t, files, found, donor_names));
    }
done:
    free(names);
    return e;
}
