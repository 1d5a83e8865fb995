// Reading YAML through libyaml's events.
#include "yaml_tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "scalar.h"

// A config holds a few dozen values; these only stop hostile files early.
enum { MOST_NODES = 20000, DEEPEST = 16 };

typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

struct yaml_tree {
    block *blocks;
};

err *yaml_tree_new(yaml_tree **out) {
    *out = calloc(1, sizeof **out);
    return *out ? NULL : err_new(ERR_SYSTEM, "out of memory reading YAML");
}

void yaml_tree_free(yaml_tree *t) {
    if (!t) return;
    for (block *b = t->blocks; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(t);
}

static void *take(yaml_tree *t, size_t bytes) {
    block *b = calloc(1, sizeof *b + bytes);
    if (!b) return NULL;
    b->next = t->blocks;
    t->blocks = b;
    return b->data;
}

err *yaml_tree_node(yaml_tree *t, node_kind kind, place at, node **out) {
    *out = take(t, sizeof **out);
    if (!*out) return err_new(ERR_SYSTEM, "out of memory reading YAML");
    (*out)->kind = kind;
    (*out)->at = at;
    return NULL;
}

err *yaml_tree_text(yaml_tree *t, const char *text, size_t bytes, const char **out) {
    char *copy = take(t, bytes + 1);
    if (!copy) return err_new(ERR_SYSTEM, "out of memory reading YAML");
    memcpy(copy, text, bytes);
    *out = copy;
    return NULL;
}

err *place_error(const place *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0) text = NULL;
    va_end(ap);
    const char *message = text ? text : "(no memory for the message)";
    err *e = at->line ? err_new(ERR_CONFIG, "%s:%d:%d: %s", at->where, at->line, at->column, message)
                      : err_new(ERR_CONFIG, "%s: %s", at->where, message);
    free(text);
    return e;
}

// ---- events to nodes

typedef struct reader {
    yaml_parser_t parser;
    yaml_tree *tree;
    const char *text, *where;
    bool positions;
    int nodes, depth;
} reader;

static place mark_place(const reader *r, yaml_mark_t mark) {
    place at = {.where = r->where};
    if (!r->positions) return at;
    at.line = (int)mark.line + 1;
    at.column = (int)mark.column + 1;
    return at;
}

// libyaml gives bytes that are not UTF-8 an offset only.
static place offset_place(const reader *r, size_t offset) {
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset; i++) {
        bool newline = r->text[i] == '\n', starts = ((unsigned char)r->text[i] & 0xc0) != 0x80;
        mark.line += newline;
        mark.column = newline ? 0 : mark.column + starts;
    }
    return mark_place(r, mark);
}

// libyaml counts characters, not bytes.
static char char_at(const reader *r, size_t index) {
    const char *s = r->text;
    for (; *s && index > 0; index--) do
            s++;
        while (((unsigned char)*s & 0xc0) == 0x80);
    return *s;
}

// What to do about it, for the mistakes that people make.
static const char *advice(const char *problem, char at) {
    if (at == '\t' || strstr(problem, "tab character")) return "; this is a tab: indent with spaces";
    if (at == '@' || at == '`' || at == '%') return "; put text that begins with this character in quotes";
    if (strstr(problem, "alphabetic or numeric")) return "; put text that begins with * or & in quotes";
    return "";
}

static err *parser_error(const reader *r) {
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) return err_new(ERR_SYSTEM, "out of memory reading YAML");
    if (p->error == YAML_READER_ERROR) {
        place at = offset_place(r, p->problem_offset);
        return place_error(&at, "found bytes that are not UTF-8 text (%s), expected YAML in UTF-8",
                           p->problem);
    }
    place at = mark_place(r, p->problem_mark);
    return place_error(&at, "found broken YAML%s%s (%s)%s", p->context ? " " : "",
                       p->context ? p->context : "", p->problem,
                       advice(p->problem, char_at(r, p->problem_mark.index)));
}

static err *next_event(reader *r, yaml_event_t *event) {
    return yaml_parser_parse(&r->parser, event) ? NULL : parser_error(r);
}

// Things of YAML that a config does without. Anchors would let few bytes stand for many nodes.
static err *check_plain(const place *at, const void *anchor, const void *tag) {
    if (anchor) return place_error(at, "found an anchor (&), expected plain YAML: write the value out");
    if (tag) return place_error(at, "found a tag (!), expected plain YAML: the key decides the type");
    return NULL;
}

static err *read_node(reader *r, yaml_event_t *event, node *n);

static err *read_scalar(reader *r, const yaml_event_t *event, node *n) {
    const char *text = (const char *)event->data.scalar.value;
    size_t bytes = event->data.scalar.length;
    if (strlen(text) != bytes) return place_error(&n->at, "found text with a NUL byte in it, expected none");
    n->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return yaml_tree_text(r->tree, text, bytes, &n->text);
}

static err *read_items(reader *r, node *list) {
    err *e = NULL;
    yaml_event_t event = {0};
    for (node **tail = &list->first;;) {
        node *item = take(r->tree, sizeof *item);
        if (!item) FAIL(ERR_SYSTEM, "out of memory reading YAML");
        yaml_event_delete(&event);
        TRY(next_event(r, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT) break;
        TRY(read_node(r, &event, item));
        *tail = item;
        tail = &item->next;
    }
done:
    yaml_event_delete(&event);
    return e;
}

static err *check_key(const node *map, const node *key) {
    if (key->kind != NODE_SCALAR)
        return place_error(&key->at, "found a key that is not text, expected `key: value`");
    if (!strcmp(key->text, "<<") && !key->quoted)
        return place_error(&key->at, "found a merge key (<<), expected plain YAML: write the keys out");
    const node *twin = node_find(map, key->text);
    if (!twin) return NULL;
    char shown[SHOWN_BYTES];
    show_text(shown, key->text);
    return twin->key_at.line
               ? place_error(&key->at, "found key %s again (first in line %d), expected it once", shown,
                             twin->key_at.line)
               : place_error(&key->at, "found key %s again, expected it once", shown);
}

static err *read_values(reader *r, node *map) {
    err *e = NULL;
    yaml_event_t event = {0};
    for (node **tail = &map->first;;) {
        node key, *value = take(r->tree, sizeof *value);
        if (!value) FAIL(ERR_SYSTEM, "out of memory reading YAML");
        yaml_event_delete(&event);
        TRY(next_event(r, &event));
        if (event.type == YAML_MAPPING_END_EVENT) break;
        TRY(read_node(r, &event, &key));
        TRY(check_key(map, &key));
        yaml_event_delete(&event);
        TRY(next_event(r, &event));
        TRY(read_node(r, &event, value));
        value->key = key.text;
        value->key_at = key.at;
        *tail = value;
        tail = &value->next;
    }
done:
    yaml_event_delete(&event);
    return e;
}

static err *check_size(reader *r, const place *at) {
    if (r->depth > DEEPEST)
        return place_error(at, "found more than %d levels of nesting, expected at most 4", DEEPEST);
    if (r->nodes > MOST_NODES)
        return place_error(at, "found more than %d values, expected a config", MOST_NODES);
    return NULL;
}

static err *check_event(const yaml_event_t *event, const place *at) {
    switch (event->type) {
    case YAML_SCALAR_EVENT: return check_plain(at, event->data.scalar.anchor, event->data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
        return check_plain(at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return check_plain(at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    default: return place_error(at, "found an alias (*), expected plain YAML: write the value out");
    }
}

static node_kind kind_of(const yaml_event_t *event) {
    if (event->type == YAML_SCALAR_EVENT) return NODE_SCALAR;
    return event->type == YAML_SEQUENCE_START_EVENT ? NODE_LIST : NODE_MAP;
}

// The node that begins with `event`, which stays the caller's.
static err *read_node(reader *r, yaml_event_t *event, node *n) {
    err *e = NULL;
    *n = (node){.kind = kind_of(event), .at = mark_place(r, event->start_mark)};
    r->depth++;
    r->nodes++;
    TRY(check_size(r, &n->at));
    TRY(check_event(event, &n->at));
    if (n->kind == NODE_SCALAR) TRY(read_scalar(r, event, n));
    if (n->kind == NODE_LIST) TRY(read_items(r, n));
    if (n->kind == NODE_MAP) TRY(read_values(r, n));
    r->depth--;
done:
    return e;
}

static err *read_document(reader *r, node **root) {
    err *e = NULL;
    yaml_event_t event = {0};
    TRY(next_event(r, &event)); // stream start
    yaml_event_delete(&event);
    TRY(next_event(r, &event));
    if (event.type == YAML_STREAM_END_EVENT) goto done;
    yaml_event_delete(&event); // document start
    TRY(next_event(r, &event));
    node *top = take(r->tree, sizeof *top);
    if (!top) FAIL(ERR_SYSTEM, "out of memory reading YAML");
    TRY(read_node(r, &event, top));
    *root = top;
    yaml_event_delete(&event);
    TRY(next_event(r, &event)); // document end
    yaml_event_delete(&event);
    TRY(next_event(r, &event));
    if (event.type != YAML_STREAM_END_EVENT) {
        place at = mark_place(r, event.start_mark);
        e = place_error(&at, "found a second YAML document, expected one");
    }
done:
    yaml_event_delete(&event);
    return e;
}

err *yaml_tree_read(yaml_tree *t, const char *text, size_t bytes, const char *where, bool positions,
                    node **root) {
    reader r = {.tree = t, .text = text, .positions = positions};
    *root = NULL;
    err *e = yaml_tree_text(t, where, strlen(where), &r.where);
    if (e) return e;
    if (!yaml_parser_initialize(&r.parser)) return err_new(ERR_SYSTEM, "out of memory reading YAML");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING); // else a mark at the start may choose UTF-16
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    e = read_document(&r, root);
    yaml_parser_delete(&r.parser);
    return e;
}

// ---- looking at nodes

node *node_find(const node *map, const char *key) {
    if (!map || map->kind != NODE_MAP) return NULL;
    for (node *n = map->first; n; n = n->next)
        if (!strcmp(n->key, key)) return n;
    return NULL;
}

node *node_at(const node *root, const char *path) {
    char key[64];
    for (;;) {
        size_t length = strcspn(path, ".");
        if (length >= sizeof key) return NULL;
        memcpy(key, path, length);
        key[length] = 0;
        node *found = node_find(root, key);
        if (!found || !path[length]) return found;
        root = found;
        path += length + 1;
    }
}

void node_append(node *parent, node *child) {
    node **tail = &parent->first;
    while (*tail) tail = &(*tail)->next;
    *tail = child;
}

node *node_item(const node *list, int index) {
    node *n = list->first;
    while (n && index-- > 0) n = n->next;
    return n;
}

int node_count(const node *parent) {
    int count = 0;
    for (const node *n = parent->first; n; n = n->next) count++;
    return count;
}

bool node_is_plain(const node *n, const char *text) {
    return n->kind == NODE_SCALAR && !n->quoted && !strcmp(n->text, text);
}

bool node_is_null(const node *n) { return node_is_plain(n, "null") || node_is_plain(n, "~"); }

void node_describe(char out[128], const node *n) {
    if (n->kind != NODE_SCALAR) {
        snprintf(out, 128, n->kind == NODE_MAP ? "a map" : "a list");
        return;
    }
    scalar_kind kind = n->quoted ? SCALAR_TEXT : scalar_classify(n->text);
    char shown[SHOWN_BYTES];
    show_text(shown, n->text);
    if (kind == SCALAR_TEXT)
        snprintf(out, 128, "text %s", shown);
    else if (kind == SCALAR_EMPTY || kind == SCALAR_NULL)
        snprintf(out, 128, "%s", kind == SCALAR_EMPTY ? "no value" : "null");
    else
        snprintf(out, 128, "%s %.*s", scalar_kind_name(kind), 60, n->text);
}
