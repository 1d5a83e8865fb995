// The other direction: a config as YAML, and the schema as text.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "scalar.h"
#include "schema.h"

// ---- values

// Words that need no quotes in any place of YAML.
static bool is_bare(const char *text) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char others[] = "0123456789_./-*+";
    if (scalar_classify(text) != SCALAR_TEXT) return false;
    if (text[0] != '/' && !strchr(letters, text[0])) return false;
    for (; *text; text++)
        if (!strchr(letters, *text) && !strchr(others, *text)) return false;
    return true;
}

static void put_text(FILE *out, const char *text) {
    if (is_bare(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) fprintf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    fputc('"', out);
}

static void put_real(FILE *out, double value) {
    char text[32];
    format_real(text, value);
    fputs(text, out);
}

static void put_list(FILE *out, const char *comma_separated) {
    fputc('[', out);
    for (const char *s = comma_separated; *s; s++) {
        fputc(*s, out);
        if (*s == ',') fputc(' ', out);
    }
    fputc(']', out);
}

static void put_ints(FILE *out, const int64_t *list, int count) {
    fputc('[', out);
    for (int i = 0; i < count; i++) fprintf(out, "%s%lld", i ? ", " : "", (long long)list[i]);
    fputc(']', out);
}

static void put_reals(FILE *out, const double *list, int count) {
    fputc('[', out);
    for (int i = 0; i < count; i++) {
        fputs(i ? ", " : "", out);
        put_real(out, list[i]);
    }
    fputc(']', out);
}

static void put_choice(FILE *out, const key *k, int index) {
    char word[32];
    if (choice_word(word, k->legal, index)) fputs(word, out);
}

// A key that may be left out and was.
static bool is_unset(const key *k, const char *base) {
    if (!k->preset || strcmp(k->preset, "null") != 0) return false;
    const char *member = base + k->offset;
    return k->type == KEY_INT ? *(const int64_t *)(const void *)member < 0
                              : !*(char *const *)(const void *)member;
}

static void put_value(FILE *out, const key *k, const char *base) {
    const void *member = base + k->offset;
    if (is_unset(k, base)) {
        fputs("null", out);
        return;
    }
    switch (k->type) {
    case KEY_INT: fprintf(out, "%lld", (long long)*(const int64_t *)member); break;
    case KEY_REAL: put_real(out, *(const double *)member); break;
    case KEY_BOOL: fputs(*(const bool *)member ? "true" : "false", out); break;
    case KEY_CHOICE: put_choice(out, k, *(const int *)member); break;
    case KEY_CHOICE_BOOL: put_choice(out, k, *(const bool *)member); break;
    case KEY_ONLY: put_choice(out, k, 0); break;
    case KEY_PAIR: put_reals(out, member, 2); break;
    case KEY_INTS:
        put_ints(out, *(int64_t *const *)member, *(const int *)(const void *)(base + k->count));
        break;
    case KEY_REALS:
        put_reals(out, *(double *const *)member, *(const int *)(const void *)(base + k->count));
        break;
    case KEY_LAYERS: put_list(out, *(char *const *)member); break;
    default: put_text(out, *(char *const *)member);
    }
}

// ---- the document

static void indent(FILE *out, int levels) { fprintf(out, "%*s", 2 * levels, ""); }

static void put_items(FILE *out, const key *k, const char *base, int level) {
    const char *list = *(char *const *)(const void *)(base + k->offset);
    int count = *(const int *)(const void *)(base + k->count), keys = 0;
    const key *item = schema_items(k, &keys);
    if (count == 0) fputs(" []", out);
    for (int i = 0; i < count * keys; i++) {
        fputc('\n', out);
        indent(out, level + 1);
        fprintf(out, "%s%s: ", i % keys ? "  " : "- ", key_leaf(&item[i % keys]));
        put_value(out, &item[i % keys], list + (size_t)(i / keys) * item_bytes(k->type));
    }
}

// Opens the sections of `path` that `last` was not in; returns their number.
static int put_sections(FILE *out, const char *last, const char *path) {
    int level = 0;
    bool same = true;
    for (const char *dot, *start = path; (dot = strchr(start, '.')); start = dot + 1, level++) {
        size_t length = (size_t)(dot - path) + 1;
        same = same && !strncmp(last, path, length);
        if (same) continue;
        indent(out, level);
        fprintf(out, "%.*s:\n", (int)(dot - start), start);
    }
    return level;
}

char *config_dump(const config *c) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    const char *last = "";
    for (const key *k = schema; k < schema + schema_keys; k++) {
        if (strchr(k->path, '[')) continue; // written with its list
        int level = put_sections(out, last, k->path);
        last = k->path;
        indent(out, level);
        fprintf(out, "%s:", key_leaf(k));
        if (item_bytes(k->type)) {
            put_items(out, k, (const char *)c, level);
        } else {
            fputc(' ', out);
            put_value(out, k, (const char *)c);
        }
        fputc('\n', out);
    }
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

// ---- the schema

static const char *default_text(const key *k) {
    if (!k->preset) return "required";
    return strcmp(k->preset, "null") != 0 ? k->preset : "none";
}

static void put_row(FILE *out, const key *k) {
    char expected[EXPECTED_BYTES];
    key_expected(expected, k);
    fprintf(out, "| `%s` | ", k->path);
    for (const char *s = expected; *s; s++) fprintf(out, *s == '|' ? "\\|" : "%c", *s);
    fprintf(out, " | %s | %s | ", default_text(k), k->unit ? k->unit : "");
    for (const char *s = k->meaning; *s; s++) fprintf(out, *s == '|' || *s == '*' ? "\\%c" : "%c", *s);
    fputs(" |\n", out);
}

// Words of `text` in lines of at most 100 columns, each indented.
static void put_wrapped(FILE *out, const char *text) {
    int column = 0;
    while (*text) {
        int length = (int)strcspn(text, " ");
        bool wrap = column > 0 && column + 1 + length > 100;
        if (column == 0 || wrap)
            column = fprintf(out, "%s    ", wrap ? "\n" : "") - wrap;
        else
            column += fprintf(out, " ");
        column += fprintf(out, "%.*s", length, text);
        text += length + strspn(text + length, " ");
    }
    fputc('\n', out);
}

static void put_entry(FILE *out, const key *k) {
    char expected[EXPECTED_BYTES];
    key_expected(expected, k);
    fprintf(out, "%s: %s", k->path, expected);
    if (k->unit) fprintf(out, "; unit: %s", k->unit);
    fprintf(out, k->preset ? "; default: %s\n" : "; %s\n", default_text(k));
    put_wrapped(out, k->meaning);
}

void config_schema(FILE *out, const char *format) {
    bool markdown = !strcmp(format, "markdown");
    if (markdown) fputs("| key | value | default | unit | meaning |\n| --- | --- | --- | --- | --- |\n", out);
    for (const key *k = schema; k < schema + schema_keys; k++) {
        if (markdown)
            put_row(out, k);
        else
            put_entry(out, k);
    }
}
