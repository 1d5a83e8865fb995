// --set path.to.key=value: one value put into the tree of the config file before it is read.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_parts.h"
#include "scalar.h"

enum { LONGEST_KEY = 64 };

typedef struct assignment {
    yaml_tree *tree;
    place at; // of all that comes from this --set
    char name[LONGEST_KEY];
    bool in_brackets; // the name about to be read: data.train[0].weight is data.train.0.weight
    node *value;
} assignment;

// Puts `value` in the place of `old` in the list or map `parent`, or at the end when old is NULL.
static void put(node *parent, node *old, node *value) {
    if (!old) {
        node_append(parent, value);
        return;
    }
    node **link = &parent->first;
    while (*link != old) link = &(*link)->next;
    value->next = old->next;
    *link = value;
}

// The item or value that `name` names in parent; NULL when a map has none of that name.
static err *look_up(const assignment *a, node *parent, node **out) {
    char found[128];
    int64_t index = -1;
    node_describe(found, parent);
    *out = NULL;
    if (parent->kind == NODE_MAP) {
        *out = node_find(parent, a->name);
        return NULL;
    }
    if (parent->kind == NODE_SCALAR)
        return place_error(&a->at, "found %s in front of \"%s\", expected a map or a list", found, a->name);
    int count = node_count(parent);
    if (parse_int(a->name, &index) != NUMBER_OK || index < 0 || index >= count)
        return place_error(&a->at,
                           "found \"%s\", expected the number of an item of a list of %d (the first is 0)",
                           a->name, count);
    *out = node_item(parent, (int)index);
    return NULL;
}

// Gives `child`, which goes into parent under the current name, the key that maps want.
static err *name_child(const assignment *a, const node *parent, node *child) {
    if (parent->kind != NODE_MAP) return NULL;
    child->key_at = a->at;
    return yaml_tree_text(a->tree, a->name, strlen(a->name), &child->key);
}

// One step down the path; a section that is absent or null is made.
static err *descend(const assignment *a, node **parent) {
    err *e = NULL;
    node *old = NULL, *child = NULL;
    TRY(look_up(a, *parent, &old));
    child = old;
    if (!old || node_is_null(old) || node_is_plain(old, "")) {
        TRY(yaml_tree_node(a->tree, NODE_MAP, a->at, &child));
        TRY(name_child(a, *parent, child));
        put(*parent, old, child);
    }
    *parent = child;
done:
    return e;
}

static err *assign(const assignment *a, node *parent) {
    err *e = NULL;
    node *old = NULL;
    TRY(look_up(a, parent, &old));
    TRY(name_child(a, parent, a->value));
    put(parent, old, a->value);
done:
    return e;
}

// The name at the front of *path, which moves to the ".", "[" or "=" behind it.
static err *next_name(assignment *a, const char **path) {
    size_t length = strcspn(*path, ".=[]");
    if (length == 0 || length >= LONGEST_KEY)
        return err_new(ERR_USAGE, "%s: found a name of %zu bytes, expected path.to.key=value", a->at.where,
                       length);
    memcpy(a->name, *path, length);
    a->name[length] = 0;
    *path += length;
    bool closed = **path == ']';
    if (closed) (*path)++;
    if (closed != a->in_brackets || !strchr(".[=", **path))
        return err_new(ERR_USAGE, "%s: found \"%s\" and then \"%s\", expected path.to.key=value", a->at.where,
                       a->name, *path);
    a->in_brackets = **path == '[';
    return NULL;
}

static err *read_assigned(assignment *a, const char *text) {
    err *e = yaml_tree_read(a->tree, text, strlen(text), a->at.where, false, &a->value);
    if (e || a->value) return e;
    e = yaml_tree_node(a->tree, NODE_SCALAR, a->at, &a->value); // "key=": no value
    if (!e) a->value->text = "";
    return e;
}

err *config_set(yaml_tree *tree, node *root, const char *text) {
    err *e = NULL;
    assignment a = {.tree = tree};
    char shown[SHOWN_BYTES], where[SHOWN_BYTES + 8];
    show_text(shown, text);
    snprintf(where, sizeof where, "--set %s", shown);
    const char *equals = strchr(text, '='), *path = text;
    if (!equals) return err_new(ERR_USAGE, "%s: found no \"=\", expected path.to.key=value", where);
    TRY(yaml_tree_text(tree, where, strlen(where), &a.at.where));
    TRY(read_assigned(&a, equals + 1));
    for (;; path++) {
        TRY(next_name(&a, &path));
        if (path == equals) break;
        TRY(descend(&a, &root));
    }
    e = assign(&a, root);
done:
    return e;
}

err *config_expand_auto(yaml_tree *tree, node *root) {
    err *e = NULL;
    node *mesh = node_find(root, "mesh"), *on;
    if (!mesh || !node_is_plain(mesh, "auto")) return NULL;
    TRY(yaml_tree_node(tree, NODE_SCALAR, mesh->at, &on));
    on->key = "auto";
    on->key_at = mesh->at;
    on->text = "true";
    mesh->kind = NODE_MAP;
    mesh->first = NULL;
    node_append(mesh, on);
done:
    return e;
}
