// The run config: reading YAML into it.
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "config_parts.h"
#include "fsutil.h"
#include "yaml_tree.h"

enum { MOST_BYTES = 1 << 20 };

static void free_sources(source_config *list, int count) {
    for (int i = 0; i < count; i++) {
        free(list[i].name);
        free(list[i].files);
    }
    free(list);
}

void config_free(config *c) {
    if (!c) return;
    free(c->run.dir);
    free(c->run.deadline);
    free(c->model.base);
    free(c->model.dus_layers);
    free(c->model.insert_after);
    free(c->model.insert_init);
    free_sources(c->data.train, c->data.n_train);
    free_sources(c->data.valid, c->data.n_valid);
    for (int i = 0; i < c->data.n_blend; i++) free(c->data.blend[i].weights);
    free(c->data.blend);
    free(c->schedule.phases);
    free(c->mesh.machine);
    free(c->mesh.layers_per_stage);
    free(c->mesh.transport);
    free(c->train.device);
    free(c);
}

depth_ask config_depth(const config *c) {
    return (depth_ask){.m = c->model.dus_m,
                       .layers = c->model.dus_layers,
                       .every = c->model.insert_every,
                       .after = c->model.insert_after,
                       .init = c->model.insert_init};
}

static err *read_root(yaml_tree *tree, const char *text, size_t bytes, const char *where, node **root) {
    err *e = yaml_tree_read(tree, text, bytes, where, true, root);
    if (e) return e;
    place start = {where, 1, 1};
    const place *at = *root ? &(*root)->at : &start;
    if (!*root)
        return place_error(at,
                           "found an empty file, expected a config (solar config --schema lists its keys)");
    if ((*root)->kind == NODE_MAP) return NULL;
    char found[128];
    node_describe(found, *root);
    return place_error(at, "found %s, expected a map of sections (run, model, data, ...)", found);
}

// `path`: of the config file, where paths are to be resolved; else NULL.
static err *make(const char *text, size_t bytes, const char *where, const char *const *set, int n_set,
                 const char *path, bool check_files, config **out) {
    err *e = NULL;
    yaml_tree *tree = NULL;
    node *root = NULL;
    *out = NULL;
    config *c = calloc(1, sizeof *c);
    if (!c) FAIL(ERR_SYSTEM, "out of memory reading the config");
    TRY(yaml_tree_new(&tree));
    TRY(read_root(tree, text, bytes, where, &root));
    TRY(config_expand_auto(tree, root));
    for (int i = 0; i < n_set; i++) {
        TRY(config_set(tree, root, set[i]));
        TRY(config_expand_auto(tree, root));
    }
    TRY(config_find_unknown(root));
    TRY(config_bind(tree, root, c));
    TRY(config_check(root, c));
    if (path) TRY(config_resolve(root, path, check_files, c));
    *out = c;
    c = NULL;
done:
    yaml_tree_free(tree);
    config_free(c);
    return e;
}

// A config file that cannot be read is an error of the config, whatever the reason.
static err *read_text(const char *path, char **text, size_t *bytes) {
    err *e = read_file(path, MOST_BYTES, text, bytes);
    if (!e) return NULL;
    err *mine = err_new(ERR_CONFIG, "%s: expected a config file of at most 1 MiB: %s", path, err_text(e));
    err_free(e);
    return mine;
}

err *config_load(const char *path, const char *const *set, int n_set, bool check_files, config **out) {
    err *e = NULL;
    char *text = NULL;
    size_t bytes = 0;
    *out = NULL;
    TRY(read_text(path, &text, &bytes));
    TRY(make(text, bytes, path, set, n_set, path, check_files, out));
done:
    free(text);
    return e;
}

err *config_parse(const char *text, const char *where, config **out) {
    return make(text, strlen(text), where, NULL, 0, NULL, false, out);
}
