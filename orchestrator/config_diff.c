#include "config_diff.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/manifest.h"

enum { MOST_KEYS = 1024, KEY = 128, DEPTH = 8 };

typedef struct setting {
    char key[KEY];
    const char *value; // not terminated
    int length;
} setting;

typedef struct settings {
    setting *at;
    int count;
} settings;

static bool counts(const char *key) {
    return strcmp(key, "run.dir") != 0 && strcmp(key, "run.deadline") != 0 && strcmp(key, "run.margin") != 0;
}

static void join(char out[KEY], char (*part)[KEY], int depth) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i <= depth && at < KEY; i++)
        at += (size_t)snprintf(out + at, KEY - at, "%s%s", i ? "." : "", part[i]);
}

// The text is what config_dump writes: two spaces a level, "key: value" or "key:" on a line, items behind "-
// ".
static settings split(const char *text) {
    settings s = {calloc(MOST_KEYS, sizeof(setting)), 0};
    char part[DEPTH][KEY] = {{0}};
    int item = 0;
    for (const char *line = text, *end; s.at && *line && s.count < MOST_KEYS; line = *end ? end + 1 : end) {
        end = line + strcspn(line, "\n");
        int indent = (int)strspn(line, " "), depth = indent / 2;
        const char *key = line + indent, *colon = memchr(key, ':', (size_t)(end - key));
        if (!colon || depth >= DEPTH - 1) continue;
        if (strncmp(key, "- ", 2) == 0) {
            key += 2;
            depth++;
            item++;
            snprintf(part[depth - 1], KEY, "%d", item);
        } else if (depth < 2)
            item = 0;
        snprintf(part[depth], KEY, "%.*s", (int)(colon - key), key);
        setting *x = &s.at[s.count];
        join(x->key, part, depth);
        x->value = colon + 1 + strspn(colon + 1, " ");
        x->length = (int)(end - x->value);
        s.count += x->length > 0 && counts(x->key);
    }
    return s;
}

void config_sum(const char *text, char out[33]) {
    settings s = split(text);
    char *all = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&all, &bytes);
    for (int i = 0; f && i < s.count; i++)
        fprintf(f, "%s: %.*s\n", s.at[i].key, s.at[i].length, s.at[i].value);
    out[0] = 0;
    if (f && fclose(f) == 0) sum_hex(all, bytes, out);
    free(all);
    free(s.at);
}

static const setting *find(const settings *s, const char *key) {
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->at[i].key, key)) return &s->at[i];
    return NULL;
}

static void show(char out[KEY], const setting *x) {
    if (x)
        snprintf(out, KEY, "%.*s", x->length, x->value);
    else
        snprintf(out, KEY, "nothing");
}

static bool same(const setting *a, const setting *b) {
    return a && b && a->length == b->length && memcmp(a->value, b->value, (size_t)a->length) == 0;
}

int config_changes(const char *before, const char *now,
                   void (*tell)(void *context, const char *key, const char *before, const char *now),
                   void *context) {
    settings a = split(before), b = split(now);
    char was[KEY], is[KEY];
    int changes = 0;
    for (int i = 0; i < a.count + b.count; i++) {
        const char *key = i < a.count ? a.at[i].key : b.at[i - a.count].key;
        const setting *x = find(&a, key), *y = find(&b, key);
        if (same(x, y) || (i >= a.count && x)) continue; // told already
        show(was, x);
        show(is, y);
        tell(context, key, was, is);
        changes++;
    }
    free(a.at);
    free(b.at);
    return changes;
}
