// From the tree of a YAML document into the members of a config, by the schema.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_parts.h"
#include "scalar.h"
#include "schema.h"

static err *no_memory(void) { return err_new(ERR_SYSTEM, "out of memory reading the config"); }

// ---- one value

static err *wrong(const key *k, const node *n, const char *hint) {
    char found[128], expected[EXPECTED_BYTES];
    node_describe(found, n);
    key_expected(expected, k);
    return place_error(&n->at, "%s: found %s, expected %s%s", k->path, found, expected, hint);
}

// Why a scalar that is not a number is none, in words that say what to write instead.
static void number_hint(char out[64], const node *n) {
    int64_t i;
    double d;
    *out = 0;
    if (n->kind != NODE_SCALAR) return;
    if (n->quoted && parse_real(n->text, &d) == NUMBER_OK)
        snprintf(out, 64, " (without quotes)");
    else if (parse_int(n->text, &i) == NUMBER_RANGE || parse_real(n->text, &d) == NUMBER_RANGE)
        snprintf(out, 64, " (this one is beyond what can be stored)");
    else if (parse_real(n->text, &d) == NUMBER_OK && d > -1e15 && d < 1e15 && d == (double)(int64_t)d)
        snprintf(out, 64, " (write %lld)", (long long)d);
}

static err *read_int_value(const key *k, const node *n, int64_t *out) {
    char hint[64];
    range r = range_read(k->legal);
    if (n->kind == NODE_SCALAR && !n->quoted && parse_int(n->text, out) == NUMBER_OK)
        return range_holds(&r, (double)*out) ? NULL : wrong(k, n, "");
    number_hint(hint, n);
    return wrong(k, n, hint);
}

static err *read_real_value(const key *k, const node *n, double *out) {
    char hint[64];
    range r = range_read(k->legal);
    if (n->kind == NODE_SCALAR && !n->quoted && parse_real(n->text, out) == NUMBER_OK)
        return range_holds(&r, *out) ? NULL : wrong(k, n, "");
    number_hint(hint, n);
    return wrong(k, n, hint);
}

static err *read_int(const key *k, const node *n, char *base) {
    return read_int_value(k, n, (int64_t *)(void *)(base + k->offset));
}

static err *read_real(const key *k, const node *n, char *base) {
    return read_real_value(k, n, (double *)(void *)(base + k->offset));
}

static bool is_word_of(const char *text, const char *list) {
    char word[32];
    for (int i = 0; choice_word(word, list, i); i++)
        if (!strcasecmp(text, word)) return true;
    return false;
}

static err *read_bool(const key *k, const node *n, char *base) {
    bool *out = (bool *)(base + k->offset);
    *out = node_is_plain(n, "true");
    if (*out || node_is_plain(n, "false")) return NULL;
    if (n->kind != NODE_SCALAR) return wrong(k, n, "");
    if (is_word_of(n->text, "yes|y|on|true|1")) return wrong(k, n, " (write true)");
    if (is_word_of(n->text, "no|n|off|false|0")) return wrong(k, n, " (write false)");
    return wrong(k, n, "");
}

// Control characters and what else would not come back from a YAML file as it went in: line separators, byte
// order marks, non-characters. `s` is UTF-8.
static bool has_control(const char *s) {
    for (; *s; s++) {
        unsigned char next = (unsigned char)s[1];
        if (iscntrl((unsigned char)*s) || (*s == '\xc2' && next < 0xa0)) return true;
        if (!strncmp(s, "\xe2\x80\xa8", 3) || !strncmp(s, "\xe2\x80\xa9", 3)) return true;
        if (!strncmp(s, "\xef\xbb\xbf", 3) || !strncmp(s, "\xef\xbf\xbe", 3) ||
            !strncmp(s, "\xef\xbf\xbf", 3))
            return true;
    }
    return false;
}

static err *read_text(const key *k, const node *n, char *base) {
    char **out = (char **)(void *)(base + k->offset);
    if (n->kind != NODE_SCALAR) return wrong(k, n, "");
    scalar_kind kind = scalar_classify(n->text);
    if (!n->quoted && (kind == SCALAR_EMPTY || kind == SCALAR_NULL)) return wrong(k, n, "");
    if (!n->quoted && kind != SCALAR_TEXT) return wrong(k, n, " (put it in quotes)");
    if (!*n->text) return wrong(k, n, " that is not empty");
    if (has_control(n->text)) return wrong(k, n, " without control characters");
    *out = strdup(n->text);
    return *out ? NULL : no_memory();
}

static err *unknown_word(const key *k, const node *n) {
    enum { MOST = 8 };
    char word[MOST][32], hint[64] = "";
    const char *known[MOST];
    int count = 0;
    for (; count < MOST && choice_word(word[count], k->legal, count); count++) known[count] = word[count];
    const char *near = n->kind == NODE_SCALAR ? suggest(n->text, known, count) : NULL;
    if (near) snprintf(hint, sizeof hint, " (did you mean %s?)", near);
    return wrong(k, n, hint);
}

static err *read_choice_index(const key *k, const node *n, int *index) {
    char word[32];
    for (*index = 0; choice_word(word, k->legal, *index); ++*index)
        if (n->kind == NODE_SCALAR && !strcmp(word, n->text)) return NULL;
    return unknown_word(k, n);
}

static err *read_choice(const key *k, const node *n, char *base) {
    return read_choice_index(k, n, (int *)(void *)(base + k->offset));
}

static err *read_choice_bool(const key *k, const node *n, char *base) {
    int index = 0;
    err *e = read_choice_index(k, n, &index);
    *(bool *)(base + k->offset) = index == 1;
    return e;
}

static err *read_choice_text(const key *k, const node *n, char *base) {
    int index = 0;
    err *e = read_choice_index(k, n, &index);
    return e ? e : read_text(k, n, base);
}

static err *read_only(const key *k, const node *n, char *base) {
    int index = 0;
    (void)base;
    return read_choice_index(k, n, &index);
}

// ---- lists

static err *read_pair(const key *k, const node *n, char *base) {
    double *out = (double *)(void *)(base + k->offset);
    if (n->kind != NODE_LIST || node_count(n) != 2) return wrong(k, n, "");
    for (int i = 0; i < 2; i++) {
        err *e = read_real_value(k, node_item(n, i), &out[i]);
        if (e) return e;
    }
    return NULL;
}

// A list of n numbers of `bytes` each into the members that a key names.
static err *new_list(const key *k, char *base, int n, size_t bytes, void *out) {
    void *list = calloc((size_t)n + 1, bytes);
    if (!list) return no_memory();
    *(void **)(void *)(base + k->offset) = list;
    *(int *)(void *)(base + k->count) = n;
    *(void **)out = list;
    return NULL;
}

static err *read_ints(const key *k, const node *n, char *base) {
    err *e = NULL;
    int64_t *list = NULL;
    int count = n->kind == NODE_LIST ? node_count(n) : 0;
    if (count == 0) return wrong(k, n, "");
    TRY(new_list(k, base, count, sizeof *list, &list));
    for (const node *item = n->first; item; item = item->next) TRY(read_int_value(k, item, list++));
done:
    return e;
}

static err *read_reals(const key *k, const node *n, char *base) {
    err *e = NULL;
    double *list = NULL;
    int count = n->kind == NODE_LIST ? node_count(n) : 0;
    if (count == 0) return wrong(k, n, "");
    TRY(new_list(k, base, count, sizeof *list, &list));
    for (const node *item = n->first; item; item = item->next) TRY(read_real_value(k, item, list++));
done:
    return e;
}

// Appends "3" or "0-23" from the front of *text (spaces around are left out) to `out`, with the mark behind
// it.
static bool take_layers(const char *marks, const char **text, FILE *out) {
    const char *s = *text + strspn(*text, " ");
    char *end;
    if (!isdigit((unsigned char)*s)) return false;
    long first = strtol(s, &end, 10), last = first;
    if (*end == '-' && isdigit((unsigned char)end[1])) last = strtol(end + 1, &end, 10);
    bool marked = *end && strchr(marks, *end);
    if (first > last || last >= 100000) return false;
    fprintf(out, first == last ? "%ld" : "%ld-%ld", first, last);
    if (marked) fputc(*end++, out);
    *text = end + strspn(end, " ");
    return true;
}

static bool take_layers_list(const char *marks, const char *text, FILE *out) {
    while (take_layers(marks, &text, out)) {
        if (!*text) return true;
        if (*text++ != ',') return false;
        fputc(',', out);
    }
    return false;
}

static err *write_layers(const key *k, const node *n, FILE *out) {
    static const char hint[] = ": first-last, first <= last, each below 100000";
    if (n->kind == NODE_SCALAR) return take_layers_list(k->legal, n->text, out) ? NULL : wrong(k, n, hint);
    if (n->kind == NODE_MAP || !n->first) return wrong(k, n, "");
    for (const node *item = n->first; item; item = item->next) {
        if (item != n->first) fputc(',', out);
        if (item->kind != NODE_SCALAR || !take_layers_list(k->legal, item->text, out))
            return wrong(k, item, hint);
    }
    return NULL;
}

static err *read_layers(const key *k, const node *n, char *base) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return no_memory();
    err *e = write_layers(k, n, out);
    if (fclose(out) && !e) e = no_memory();
    if (e)
        free(text);
    else
        *(char **)(void *)(base + k->offset) = text;
    return e;
}

static err *bind_key(yaml_tree *tree, const key *k, const node *map, const node *n, char *base);

static err *read_items(yaml_tree *tree, const key *k, const node *n, char *base) {
    err *e = NULL;
    char *item_base = NULL;
    int keys = 0;
    if (n->kind == NODE_MAP) return wrong(k, n, " (a list of maps, even of one)");
    if (n->kind != NODE_LIST) return wrong(k, n, "");
    if (!n->first && !k->preset)
        return place_error(&n->at, "%s: found an empty list, expected at least one source", k->path);
    TRY(new_list(k, base, node_count(n), item_bytes(k->type), &item_base));
    const key *item_keys = schema_items(k, &keys);
    for (const node *item = n->first; item; item = item->next, item_base += item_bytes(k->type))
        for (int i = 0; i < keys; i++) {
            const key *sub = item_keys + i;
            TRY(bind_key(tree, sub, item, node_find(item, key_leaf(sub)), item_base));
        }
done:
    return e;
}

static err *(*const read_value[])(const key *, const node *, char *) = {
    [KEY_INT] = read_int,
    [KEY_REAL] = read_real,
    [KEY_BOOL] = read_bool,
    [KEY_TEXT] = read_text,
    [KEY_PATH] = read_text,
    [KEY_CHOICE] = read_choice,
    [KEY_CHOICE_BOOL] = read_choice_bool,
    [KEY_CHOICE_TEXT] = read_choice_text,
    [KEY_ONLY] = read_only,
    [KEY_PAIR] = read_pair,
    [KEY_INTS] = read_ints,
    [KEY_LAYERS] = read_layers,
    [KEY_REALS] = read_reals,
};

// ---- keys

static err *missing(const key *k, const node *map) {
    char expected[EXPECTED_BYTES];
    key_expected(expected, k);
    return place_error(&map->at, "%s: found no such key, expected %s: it is required. %s", k->path, expected,
                       k->meaning);
}

static err *bind_default(yaml_tree *tree, const key *k, char *base) {
    node *n = NULL;
    if (k->preset[0] == '(') return NULL;
    if (!strcmp(k->preset, "null")) {
        if (k->type == KEY_INT) *(int64_t *)(void *)(base + k->offset) = -1;
        return NULL;
    }
    err *e = yaml_tree_read(tree, k->preset, strlen(k->preset), "default", false, &n);
    if (e) return e;
    return item_bytes(k->type) ? read_items(tree, k, n, base) : read_value[k->type](k, n, base);
}

// `map` would hold the key; n is its value, or NULL.
static err *bind_key(yaml_tree *tree, const key *k, const node *map, const node *n, char *base) {
    if (n && key_is_optional(k) && node_is_null(n)) n = NULL;
    if (!n) return k->preset ? bind_default(tree, k, base) : missing(k, map);
    if (item_bytes(k->type)) return read_items(tree, k, n, base);
    return read_value[k->type](k, n, base);
}

// The map that holds the key, or would: the deepest section of its path that is there.
static const node *section_of(const node *root, const char *path) {
    char section[64];
    snprintf(section, sizeof section, "%s", path);
    for (char *dot; (dot = strrchr(section, '.'));) {
        *dot = 0;
        const node *found = node_at(root, section);
        if (found) return found;
    }
    return root;
}

err *config_bind(yaml_tree *tree, const node *root, config *c) {
    err *e = NULL;
    for (int i = 0; !e && i < schema_keys; i++) {
        const key *k = &schema[i];
        if (strchr(k->path, '[')) continue; // of an item: read with its list
        e = bind_key(tree, k, section_of(root, k->path), node_at(root, k->path), (char *)c);
    }
    return e;
}
