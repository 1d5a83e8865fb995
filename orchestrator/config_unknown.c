// Keys that the schema does not know, with the nearest that it does.
#include <stdio.h>
#include <string.h>

#include "config_parts.h"
#include "scalar.h"
#include "schema.h"

// Keys that may stand in a section, or in an item of a list when `section` ends in "[]".
static int known_keys(const char *section, char known[][64], int most) {
    size_t length = strlen(section);
    int count = 0;
    for (const key *k = schema; k < schema + schema_keys && count < most; k++) {
        const char *rest = k->path + length + (length > 0);
        if (length && (strncmp(k->path, section, length) || k->path[length] != '.')) continue;
        char *name = known[count];
        snprintf(name, 64, "%.*s", (int)strcspn(rest, ".["), rest);
        if (count == 0 || strcmp(known[count - 1], name)) count++;
    }
    return count;
}

// A key of this name in some other section.
static const char *elsewhere(const char *name) {
    for (const key *k = schema; k < schema + schema_keys; k++)
        if (!strcmp(key_leaf(k), name)) return k->path;
    return NULL;
}

static err *unknown_key(const node *n, const char *section) {
    enum { MOST = 32 };
    char known[MOST][64], shown[SHOWN_BYTES], list[MOST * 34] = "";
    const char *names[MOST];
    int count = known_keys(section, known, MOST);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        names[i] = known[i];
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", known[i]);
    }
    show_text(shown, n->key);
    const char *near = suggest(n->key, names, count), *other = elsewhere(n->key);
    const char *ask = near || other ? "; did you mean " : "", *dot = near && *section ? "." : "";
    return place_error(&n->key_at, "found unknown key %s in %s, expected one of %s%s%s%s%s%s", shown,
                       *section ? section : "the config", list, ask, near ? section : "", dot,
                       near    ? near
                       : other ? other
                               : "",
                       near || other ? "?" : "");
}

static err *check_keys(const node *map, const char *section);

static err *check_items(const node *list, const char *path, const char *example) {
    char section[80];
    snprintf(section, sizeof section, "%s[]", path);
    for (const node *item = list->first; item; item = item->next) {
        char found[128];
        node_describe(found, item);
        if (item->kind != NODE_MAP)
            return place_error(&item->at, "%s: found %s, expected a map such as %s", path, found, example);
        err *e = check_keys(item, section);
        if (e) return e;
    }
    return NULL;
}

static err *check_section(const node *n, const char *path) {
    char found[128];
    if (node_is_null(n)) return NULL; // as if absent
    node_describe(found, n);
    if (n->kind != NODE_MAP) return place_error(&n->at, "%s: found %s, expected a map of keys", path, found);
    return check_keys(n, path);
}

// Every key of a map stands in the schema; sections are maps.
static err *check_keys(const node *map, const char *section) {
    for (const node *n = map->first; n; n = n->next) {
        char path[64];
        int length = snprintf(path, sizeof path, "%s%s%s", section, *section ? "." : "", n->key);
        const key *k = length < (int)sizeof path ? schema_find(path) : NULL;
        err *e = NULL;
        if (k && item_bytes(k->type) && n->kind == NODE_LIST)
            e = check_items(n, path, item_example(k->type));
        else if (!k && length < (int)sizeof path && *n->key && schema_is_section(path))
            e = check_section(n, path);
        else if (!k)
            e = unknown_key(n, section);
        if (e) return e;
    }
    return NULL;
}

err *config_find_unknown(const node *root) { return check_keys(root, ""); }
