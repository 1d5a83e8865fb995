// The file of a sweep.
#include "sweep.h"

#include <stdlib.h>
#include <string.h>

#include "fsutil.h"
#include "scalar.h"
#include "yaml_tree.h"

static const char *const keys[] = {"dir",   "config", "bases",  "m",     "layers", "baselines",
                                   "seeds", "equal",  "tokens", "ranks", "scaling"};
static const char *const base_keys[] = {"name", "model", "layers", "tokens"};
enum { KEYS = sizeof keys / sizeof *keys, BASE_KEYS = sizeof base_keys / sizeof *base_keys };

static err *expected(const node *n, const char *key, const char *what) {
    char found[128];
    node_describe(found, n);
    return place_error(&n->at, "%s: found %s, expected %s", key, found, what);
}

static err *check_keys(const node *map, const char *const *known, int count) {
    char shown[SHOWN_BYTES];
    if (map->kind != NODE_MAP) return expected(map, "sweep", "a map");
    for (const node *n = map->first; n; n = n->next) {
        bool found = false;
        for (int i = 0; i < count; i++) found |= strcmp(n->key, known[i]) == 0;
        if (found) continue;
        const char *near = suggest(n->key, known, count);
        show_text(shown, n->key);
        return place_error(&n->key_at, "unknown key %s%s%s", shown, near ? "; did you mean " : "",
                           near ? near : "");
    }
    return NULL;
}

static err *read_text(const node *map, const char *key, bool must, char **out) {
    const node *n = node_find(map, key);
    if (!n && must) return place_error(&map->at, "%s is missing", key);
    if (!n) return NULL;
    if (n->kind != NODE_SCALAR || !*n->text) return expected(n, key, "text");
    *out = strdup(n->text);
    return *out ? NULL : err_new(ERR_SYSTEM, "out of memory");
}

static err *read_int(const node *n, const char *key, int64_t least, int64_t *out) {
    if (n->kind != NODE_SCALAR || parse_int(n->text, out) != NUMBER_OK || *out < least)
        return expected(n, key, least > 0 ? "a whole number above 0" : "a whole number");
    return NULL;
}

// A number or a list of them.
static err *read_ints(const node *map, const char *key, int64_t least, int64_t **out, int *count) {
    err *e = NULL;
    const node *n = node_find(map, key);
    if (!n) return NULL;
    bool list = n->kind == NODE_LIST;
    int many = list ? node_count(n) : 1;
    *out = calloc((size_t)many + 1, sizeof **out);
    if (!*out) return err_new(ERR_SYSTEM, "out of memory");
    for (int i = 0; i < many; i++) TRY(read_int(list ? node_item(n, i) : n, key, least, &(*out)[i]));
    *count = many;
done:
    return e;
}

static err *read_texts(const node *map, const char *key, char ***out, int *count) {
    const node *n = node_find(map, key);
    if (!n) return NULL;
    if (n->kind != NODE_LIST) return expected(n, key, "a list such as [\"0-3,1-4\"]");
    *out = calloc((size_t)node_count(n) + 1, sizeof **out);
    if (!*out) return err_new(ERR_SYSTEM, "out of memory");
    for (const node *i = n->first; i; i = i->next) {
        if (i->kind != NODE_SCALAR) return expected(i, key, "text such as \"0-3,1-4\"");
        if (!((*out)[*count] = strdup(i->text))) return err_new(ERR_SYSTEM, "out of memory");
        ++*count;
    }
    return NULL;
}

static err *read_base(const node *n, sweep_base *b) {
    err *e = NULL;
    TRY(check_keys(n, base_keys, BASE_KEYS));
    TRY(read_text(n, "name", true, &b->name));
    TRY(read_text(n, "model", true, &b->model));
    TRY(read_text(n, "layers", false, &b->layers));
    if (node_find(n, "tokens")) TRY(read_int(node_find(n, "tokens"), "tokens", 1, &b->tokens));
    if (strspn(b->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") !=
        strlen(b->name))
        e = expected(node_find(n, "name"), "name", "letters, digits, and any of _.-");
done:
    return e;
}

static err *read_bases(const node *root, sweep *s) {
    err *e = NULL;
    const node *n = node_find(root, "bases");
    if (!n) return place_error(&root->at, "bases is missing");
    if (n->kind != NODE_LIST) return expected(n, "bases", "a list of {name, model}");
    s->base = calloc((size_t)node_count(n) + 1, sizeof *s->base);
    if (!s->base) return err_new(ERR_SYSTEM, "out of memory");
    for (const node *i = n->first; i; i = i->next) TRY(read_base(i, &s->base[s->n_base++]));
done:
    return e;
}

// A list of words, each of which sets its flag.
static err *read_flags(const node *root, const char *key, const char *const *words, bool *const *flags,
                       int count) {
    const node *n = node_find(root, key);
    if (!n) return NULL;
    if (n->kind != NODE_LIST) return expected(n, key, "a list");
    for (const node *i = n->first; i; i = i->next) {
        int k = 0;
        while (k < count && !(i->kind == NODE_SCALAR && strcmp(i->text, words[k]) == 0)) k++;
        if (k == count) return expected(i, key, key[0] == 'e' ? "tokens or flop" : "base, random or insert");
        *flags[k] = true;
    }
    return NULL;
}

static err *read_scaling(const node *root, sweep *s) {
    const node *n = node_find(root, "scaling");
    if (!n) return NULL;
    s->weak = node_is_plain(n, "weak");
    return s->weak || node_is_plain(n, "strong") ? NULL : expected(n, "scaling", "strong or weak");
}

static err *set_default(int64_t **list, int *count) {
    if (*count) return NULL;
    free(*list);
    if (!(*list = calloc(1, sizeof **list))) return err_new(ERR_SYSTEM, "out of memory");
    (*list)[(*count)++] = 1;
    return NULL;
}

static err *read_grid(const node *root, sweep *s) {
    err *e = NULL;
    static const char *const baselines[] = {"base", "random", "insert"}, *const equals[] = {"tokens", "flop"};
    bool *const baseline_flags[] = {&s->with_base, &s->with_random, &s->with_insert},
                *const equal_flags[] = {&s->equal[EQUAL_TOKENS], &s->equal[EQUAL_FLOP]};
    TRY(read_bases(root, s));
    TRY(read_ints(root, "m", 0, &s->m, &s->n_m));
    TRY(read_texts(root, "layers", &s->layers, &s->n_layers));
    TRY(read_flags(root, "baselines", baselines, baseline_flags, 3));
    TRY(read_ints(root, "seeds", 0, &s->seed, &s->n_seed));
    TRY(set_default(&s->seed, &s->n_seed));
    TRY(read_flags(root, "equal", equals, equal_flags, 2));
    if (!s->equal[EQUAL_FLOP]) s->equal[EQUAL_TOKENS] = true;
    if (!node_find(root, "tokens")) return place_error(&root->at, "tokens is missing: the budget of a cell");
    TRY(read_int(node_find(root, "tokens"), "tokens", 1, &s->tokens));
    TRY(read_ints(root, "ranks", 1, &s->ranks, &s->n_ranks));
    s->with_ranks = s->n_ranks > 0;
    TRY(set_default(&s->ranks, &s->n_ranks));
    TRY(read_scaling(root, s));
done:
    return e;
}

// A path as written if it is there, else from the folder of the sweep's file.
static err *beside(const char *file, char **path) {
    const char *slash = strrchr(file, '/');
    char *other = NULL;
    if (!*path || **path == '/' || path_exists(*path) || !slash) return NULL;
    if (asprintf(&other, "%.*s/%s", (int)(slash - file), file, *path) < 0)
        return err_new(ERR_SYSTEM, "out of memory");
    if (path_exists(other)) {
        free(*path);
        *path = other;
    } else
        free(other);
    return NULL;
}

static err *read_sweep(const char *path, const node *root, sweep *s) {
    err *e = NULL;
    TRY(check_keys(root, keys, KEYS));
    TRY(read_text(root, "dir", true, &s->dir));
    TRY(read_text(root, "config", true, &s->config_path));
    TRY(read_grid(root, s));
    TRY(beside(path, &s->config_path));
    for (int i = 0; i < s->n_base; i++) TRY(beside(path, &s->base[i].model));
    TRY(config_load(s->config_path, NULL, 0, false, &s->config));
done:
    return e;
}

err *sweep_open(const char *path, sweep *out) {
    err *e = NULL;
    yaml_tree *t = NULL;
    node *root = NULL;
    char *text = NULL;
    size_t bytes;
    *out = (sweep){.cells = 0};
    TRY(read_file(path, 1 << 20, &text, &bytes));
    TRY(yaml_tree_new(&t));
    TRY(yaml_tree_read(t, text, bytes, path, true, &root));
    if (!root) FAIL(ERR_CONFIG, "%s is empty, expected a sweep", path);
    out->file = strdup(path);
    TRY(read_sweep(path, root, out));
    TRY(sweep_plan(out));
done:
    yaml_tree_free(t);
    free(text);
    if (e) sweep_free(out);
    return e;
}

void sweep_free(sweep *s) {
    for (int i = 0; i < s->n_base; i++) {
        free(s->base[i].name);
        free(s->base[i].model);
        free(s->base[i].layers);
    }
    for (int i = 0; i < s->cells; i++) {
        free(s->cell[i].name);
        free(s->cell[i].dir);
        free(s->cell[i].layers);
    }
    for (int i = 0; i < s->n_layers; i++) free(s->layers[i]);
    free(s->base);
    free(s->cell);
    free(s->layers);
    free(s->m);
    free(s->seed);
    free(s->ranks);
    free(s->file);
    free(s->dir);
    free(s->config_path);
    config_free(s->config);
    *s = (sweep){.cells = 0};
}
