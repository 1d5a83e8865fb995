// Paths of the config: made absolute, so that a run can be resumed from anywhere, and looked at.
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_parts.h"
#include "scalar.h"

typedef struct resolver {
    char *here;       // current directory
    char *config_dir; // the config file's, absolute
    bool must_exist;
} resolver;

static err *no_memory(void) { return err_new(ERR_SYSTEM, "out of memory reading the config"); }

// `path` as seen from an absolute directory; NULL without memory.
static char *absolute(const char *dir, const char *path) {
    char *out = NULL;
    while (path[0] == '.' && path[1] == '/') path += 2 + strspn(path + 2, "/");
    if (!strcmp(path, ".")) path = "";
    const char *slash = !*path || !strcmp(dir, "/") ? "" : "/";
    int n = path[0] == '/' ? asprintf(&out, "%s", path) : asprintf(&out, "%s%s%s", dir, slash, path);
    return n < 0 ? NULL : out;
}

static err *resolver_open(resolver *r, const char *config_path, bool must_exist) {
    r->must_exist = must_exist;
    r->here = getcwd(NULL, 0);
    if (!r->here) return err_new(ERR_SYSTEM, "the current directory is gone: change to one that exists");
    const char *slash = strrchr(config_path, '/');
    char *dir =
        slash ? strndup(config_path, (size_t)(slash - config_path) + (slash == config_path)) : strdup(".");
    if (dir) r->config_dir = absolute(r->here, dir);
    free(dir);
    return r->config_dir ? NULL : no_memory();
}

static void resolver_close(resolver *r) {
    free(r->here);
    free(r->config_dir);
}

static bool is_directory(const char *path) {
    struct stat s;
    return !stat(path, &s) && S_ISDIR(s.st_mode);
}

static bool is_file(const char *path) {
    struct stat s;
    return !stat(path, &s) && S_ISREG(s.st_mode);
}

// A path that is there wins over its reading as a pattern: "[" may stand in a file name.
static bool matches_file(const char *pattern) {
    glob_t g = {0};
    bool found = is_file(pattern);
    if (!found && glob(pattern, GLOB_NOSORT, NULL, &g) == 0)
        for (size_t i = 0; i < g.gl_pathc && !found; i++) found = is_file(g.gl_pathv[i]);
    globfree(&g);
    return found;
}

// Replaces *path by the first of (current directory, config file's directory) from which `there` holds,
// else by the former, with *found false.
static err *locate(const resolver *r, char **path, bool (*there)(const char *), bool *found) {
    char *near = absolute(r->here, *path), *beside = absolute(r->config_dir, *path);
    if (!near || !beside) {
        free(near);
        free(beside);
        return no_memory();
    }
    bool first = there(near), second = !first && there(beside);
    *found = first || second;
    free(*path);
    *path = second ? beside : near;
    free(second ? near : beside);
    return NULL;
}

static err *not_found(const resolver *r, const node *n, const char *what, const char *expected) {
    char shown[SHOWN_BYTES];
    show_text(shown, n->text);
    if (n->text[0] == '/')
        return place_error(&n->at, "%s: found nothing at %s, expected %s", what, shown, expected);
    bool two = strcmp(r->here, r->config_dir) != 0;
    return place_error(&n->at, "%s: found nothing at %s (from %s%s%s), expected %s", what, shown, r->here,
                       two ? " or " : "", two ? r->config_dir : "", expected);
}

static err *resolve_run(const resolver *r, const node *root, config *c) {
    if (c->run.dir[0] == '~' ||
        c->run.dir[0] == '$') // the shell's business: a directory of that name would be made
        return place_error(
            &node_at(root, "run.dir")->at,
            "run.dir: found %s, expected a path as it is: ~ and $ are not replaced in a config", c->run.dir);
    char *dir = absolute(r->here, c->run.dir);
    if (!dir) return no_memory();
    free(c->run.dir);
    c->run.dir = dir;
    struct stat s;
    if (!r->must_exist || stat(dir, &s) || S_ISDIR(s.st_mode)) return NULL;
    const node *n = node_at(root, "run.dir");
    return place_error(&n->at, "run.dir: found a file at %s, expected a directory, or nothing there yet",
                       dir);
}

static err *resolve_base(const resolver *r, const node *root, config *c) {
    const node *n = node_at(root, "model.base");
    bool found = false;
    err *e = locate(r, &c->model.base, is_directory, &found);
    if (e || !r->must_exist) return e;
    if (!found && is_file(c->model.base))
        return place_error(&n->at, "model.base: found a file at %s, expected the directory of a model",
                           c->model.base);
    if (!found) return not_found(r, n, "model.base", "the directory of a Hugging Face model");
    char *config_json = absolute(c->model.base, "config.json");
    if (!config_json) return no_memory();
    bool model = is_file(config_json);
    free(config_json);
    if (model) return NULL;
    return place_error(
        &n->at, "model.base: found no config.json in %s, expected the directory of a Hugging Face model",
        c->model.base);
}

static err *resolve_sources(const resolver *r, const node *root, const char *path, source_config *list,
                            int count) {
    const node *item = count ? node_at(root, path)->first : NULL;
    for (int i = 0; i < count; i++, item = item->next) {
        bool found = false;
        err *e = locate(r, &list[i].files, matches_file, &found);
        if (e) return e;
        char what[64];
        snprintf(what, sizeof what, "%s[%d].files", path, i);
        if (r->must_exist && !found)
            return not_found(r, node_find(item, "files"), what,
                             "token files, as `solar tokenize` makes them");
    }
    return NULL;
}

err *config_resolve(const node *root, const char *config_path, bool must_exist, config *c) {
    err *e = NULL;
    resolver r = {0};
    TRY(resolver_open(&r, config_path, must_exist));
    TRY(resolve_run(&r, root, c));
    TRY(resolve_base(&r, root, c));
    TRY(resolve_sources(&r, root, "data.train", c->data.train, c->data.n_train));
    TRY(resolve_sources(&r, root, "data.valid", c->data.valid, c->data.n_valid));
done:
    resolver_close(&r);
    return e;
}
