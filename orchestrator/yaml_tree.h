// A YAML document as a tree that remembers where everything stood. Only what a config needs: maps with
// text keys, lists and scalars, to a small depth.
#ifndef SOLAR_YAML_TREE_H
#define SOLAR_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

typedef struct place {
    const char *where; // file name, or the text of a --set
    int line, column;  // from 1; line 0: `where` says it all
} place;

typedef enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP } node_kind;

typedef struct node node;
struct node {
    node_kind kind;
    place at;
    const char *text; // scalar
    bool quoted;      // scalar: in quotes or a block, so it is text whatever it looks like
    node *first;      // items of a list, values of a map
    node *next;       // in the list or map that holds this node
    const char *key;  // in a map
    place key_at;
};

typedef struct yaml_tree yaml_tree; // owns the memory of its nodes
err *yaml_tree_new(yaml_tree **out);
void yaml_tree_free(yaml_tree *t); // NULL is fine
// Reads one document into *root; NULL when the text holds none. `positions`: places get line and column.
// Not UTF-8, tabs, broken YAML, a second document, a key twice, anchors, aliases, tags, keys that are not
// text, too deep or too large: ERR_CONFIG with the place.
err *yaml_tree_read(yaml_tree *t, const char *text, size_t bytes, const char *where, bool positions,
                    node **root);
err *yaml_tree_node(yaml_tree *t, node_kind kind, place at, node **out);
err *yaml_tree_text(yaml_tree *t, const char *text, size_t bytes, const char **out); // a copy

node *node_find(const node *map, const char *key); // NULL when absent or not a map
node *node_at(const node *root, const char *path); // "a.b.c"; NULL when absent
void node_append(node *parent, node *child);       // child->key is set by the caller for a map
node *node_item(const node *list, int index);      // NULL when there are fewer
int node_count(const node *parent);
bool node_is_plain(const node *n, const char *text); // a scalar without quotes, of that text
bool node_is_null(const node *n);
void node_describe(char out[128], const node *n); // `integer 5`, `text "abc"`, `a map`

// ERR_CONFIG, "file:line:column: ...".
err *place_error(const place *at, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), returns_nonnull));

#endif
