#include "text_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsutil.h"

// Deeper trees are loops of symbolic links, as far as anybody has seen.
enum { MAX_DEPTH = 64 };

static size_t stem_length(const char *path) {
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ".gz") == 0) return n - 3;
    if (n > 4 && strcmp(path + n - 4, ".zst") == 0) return n - 4;
    return n;
}

static bool kind_of(const char *path, text_format format, bool *json) {
    static const char *const plain[] = {".txt", ".text"}, *const lines[] = {".jsonl", ".ndjson", ".json"};
    size_t n = stem_length(path);
    *json = format == TEXT_JSONL;
    if (format != TEXT_BY_NAME) return true;
    for (int i = 0; i < 5; i++) {
        const char *end = i < 2 ? plain[i] : lines[i - 2];
        size_t m = strlen(end);
        *json = i >= 2;
        if (n > m && memcmp(path + n - m, end, m) == 0) return true;
    }
    return false;
}

static err *add_file(file_list *l, const char *path, uint64_t bytes, bool json) {
    if (l->count == l->capacity) {
        int capacity = l->capacity ? 2 * l->capacity : 16;
        text_file *grown = realloc(l->file, (size_t)capacity * sizeof *grown);
        if (!grown) return err_new(ERR_SYSTEM, "no memory for a list of %d files", capacity);
        l->file = grown;
        l->capacity = capacity;
    }
    char *copy = strdup(path);
    if (!copy) return err_new(ERR_SYSTEM, "no memory");
    l->file[l->count++] = (text_file){.path = copy, .bytes = bytes, .json = json};
    return NULL;
}

static err *add_path(file_list *l, const char *path, text_format format, int depth);

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *d) { return d->d_name[0] != '.'; }

static err *add_directory(file_list *l, const char *dir, text_format format, int depth) {
    err *e = NULL;
    struct dirent **entry = NULL;
    int n = scandir(dir, &entry, not_hidden, by_name);
    if (n < 0) return err_errno(errno, "cannot list %s", dir);
    for (int i = 0; i < n; i++) {
        char *path = e ? NULL : path_join(dir, entry[i]->d_name);
        if (path) e = add_path(l, path, format, depth + 1);
        free(path);
        free(entry[i]);
    }
    free(entry);
    return e;
}

static err *add_path(file_list *l, const char *path, text_format format, int depth) {
    struct stat st;
    bool json;
    if (stat(path, &st) != 0)
        return errno == ENOENT && depth == 0
                   ? err_new(ERR_INPUT, "%s: there is no such file or directory", path)
                   : err_errno(errno, "cannot look at %s", path);
    if (depth > MAX_DEPTH)
        return err_new(ERR_INPUT, "%s lies more than %d directories deep: a loop of symbolic links?", path,
                       MAX_DEPTH);
    if (S_ISDIR(st.st_mode)) return add_directory(l, path, format, depth);
    if (!S_ISREG(st.st_mode) && depth == 0)
        return err_new(ERR_INPUT, "%s is neither a file nor a directory", path);
    if (S_ISREG(st.st_mode) && kind_of(path, format, &json))
        return add_file(l, path, (uint64_t)st.st_size, json);
    if (depth == 0)
        return err_new(
            ERR_INPUT,
            "%s: its name does not say what it holds; known are .txt .text (plain) and .jsonl .ndjson "
            ".json (JSON lines), each also with .gz or .zst behind; rename it, or say the format",
            path);
    l->skipped++;
    return NULL;
}

err *files_add(file_list *l, const char *path, text_format format) { return add_path(l, path, format, 0); }

void files_free(file_list *l) {
    for (int i = 0; i < l->count; i++) free(l->file[i].path);
    free(l->file);
    *l = (file_list){0};
}
