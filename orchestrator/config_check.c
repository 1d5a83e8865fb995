// Keys that depend on each other, and the values that other keys decide.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_parts.h"
#include "scalar.h"
#include "schema.h"

// Where a key stands; where it was left to its default, the section that would hold it.
static const place *place_of(const node *root, const char *path) {
    char section[64];
    snprintf(section, sizeof section, "%s", path);
    const node *found = node_at(root, section);
    for (char *dot; !found && (dot = strrchr(section, '.'));) {
        *dot = 0;
        found = node_at(root, section);
    }
    return found ? &found->at : &root->at;
}

static err *check_insert(const node *root, const config *c) {
    const node *insert = node_at(root, "model.dus.insert");
    bool every = c->model.insert_every > 0, after = c->model.insert_after, init = c->model.insert_init;
    if (every && after)
        return place_error(place_of(root, "model.dus.insert.after"),
                           "model.dus.insert: found both every and after, expected one of them");
    if (!every && !after && insert && insert->kind == NODE_MAP && (init || !insert->first))
        return place_error(&insert->at,
                           "model.dus.insert: found neither every nor after, expected one of them "
                           "(or no model.dus.insert)");
    return NULL;
}

static err *check_dus(const node *root, config *c) {
    const node *dus = node_at(root, "model.dus");
    const depth_ask ask = config_depth(c);
    if (ask.m >= 0 && ask.layers)
        return place_error(
            place_of(root, "model.dus.layers"),
            "model.dus: found both m and layers, expected one of them: layers is the general form of m");
    if (dus && dus->kind == NODE_MAP && !dus->first)
        return place_error(&dus->at,
                           "model.dus: found an empty map, expected m, layers or insert (or no model.dus)");
    c->model.has_dus = depth_asked(&ask);
    return check_insert(root, c);
}

// Scales of groups that there are not would do nothing, or freeze everything.
static err *check_scales(const node *root, config *c) {
    bool marked = c->model.dus_layers && strpbrk(c->model.dus_layers, "zc");
    bool fresh = marked || c->model.insert_every > 0 || c->model.insert_after;
    const double scale[] = {c->lr_scale.fresh, c->lr_scale.old};
    static const char *const path[] = {"lr_scale.new", "lr_scale.old"};
    for (int i = 0; i < 2 && !fresh; i++)
        if (scale[i] != 1)
            return place_error(place_of(root, path[i]),
                               "%s: found %g without new layers, expected 1.0: model.dus.insert makes some",
                               path[i], scale[i]);
    return NULL;
}

static err *check_batch(const node *root, config *c) {
    int64_t global = c->train.global_batch, micro = c->train.micro_batch;
    if (global % micro == 0) return NULL;
    return place_error(
        place_of(root, "train.micro_batch"),
        "train.micro_batch: found %lld, expected a divisor of train.global_batch, which is %lld",
        (long long)micro, (long long)global);
}

// Token positions are kept in 64 bits; leave room for sums over ranks.
static err *check_tokens(const node *root, config *c) {
    double tokens = (double)c->train.steps * (double)c->train.global_batch * (double)c->data.seq_len;
    if (tokens < 1e18) return NULL;
    return place_error(
        place_of(root, "train.steps"),
        "train.steps: found steps x global_batch x seq_len = %.3g tokens, expected less than 1e18", tokens);
}

static const char *schedule_name(const config *c) {
    static const char *const name[] = {"wsd", "cosine", "linear", "constant"};
    return name[c->schedule.kind];
}

static err *check_schedule(const node *root, config *c) {
    long long warmup = c->schedule.warmup, decay = c->schedule.decay, steps = c->train.steps;
    if (decay > 0 && c->schedule.kind != SCHED_WSD)
        return place_error(
            place_of(root, "schedule.decay"),
            "schedule.decay: found %lld with schedule.kind %s, expected none: only wsd uses it", decay,
            schedule_name(c));
    if (c->schedule.min_lr > 0 && c->schedule.kind == SCHED_CONSTANT)
        return place_error(
            place_of(root, "schedule.min_lr"),
            "schedule.min_lr: found %g with schedule.kind constant, expected none: wsd, cosine and "
            "linear use it",
            c->schedule.min_lr);
    if (c->schedule.min_lr > c->optimizer.lr)
        return place_error(place_of(root, "schedule.min_lr"),
                           "schedule.min_lr: found %g, expected at most optimizer.lr, which is %g",
                           c->schedule.min_lr, c->optimizer.lr);
    if (warmup + decay > steps)
        return place_error(
            place_of(root, decay ? "schedule.decay" : "schedule.warmup"),
            "schedule: found warmup %lld + decay %lld = %lld steps, expected at most train.steps, "
            "which is %lld",
            warmup, decay, warmup + decay, steps);
    return NULL;
}

static err *check_layout(const node *root, config *c) {
    long long stages = c->mesh.pipeline;
    int count = c->mesh.n_layers_per_stage;
    if (count == 0 || count == stages) return NULL;
    return place_error(place_of(root, "mesh.layout"),
                       "mesh.layout: found %d numbers, expected one for each of mesh.pipeline, which is %lld",
                       count, stages);
}

// Why the base model's own loss cannot be measured, or NULL when it can.
static const char *no_base_loss(const config *c) {
    if (c->model.random) return "with model.init random, where the base has no weights";
    if (!c->model.has_dus) return "without model.dus, where the first validation is the base's";
    return c->data.n_valid ? NULL : "without data.valid, on which it would be measured";
}

static err *check_eval(const node *root, config *c) {
    const node *base = node_at(root, "eval.base");
    const char *why_not = no_base_loss(c);
    if (!base || node_is_null(base)) c->eval.base = !why_not;
    if (c->eval.base && why_not)
        return place_error(place_of(root, "eval.base"), "eval.base: found true %s, expected false", why_not);
    if (c->eval.stop_when_recovered && !c->eval.base)
        return place_error(place_of(root, "eval.stop_when_recovered"),
                           "eval.stop_when_recovered: found true %s, expected false",
                           why_not ? why_not : "with eval.base false");
    return NULL;
}

// ---- names of sources

// The length of the part of a file name that says something: up to the first sign of a pattern, without
// what joins words.
static int stem_length(const char *name, int length) {
    int stem = 0;
    while (stem < length && !strchr("*?[", name[stem])) stem++;
    if (stem == length) return stem;
    while (stem > 0 && strchr("-_.", name[stem - 1])) stem--;
    return stem;
}

// "web/train.h5": train; "web/*.h5": web; "web/part-*.h5": part.
static char *default_name(const char *files) {
    const char *end = files + strlen(files);
    if (end - files >= 3 && !strcmp(end - 3, ".h5")) end -= 3;
    for (const char *start; end > files; end = start - 1) {
        for (start = end; start > files && start[-1] != '/';) start--;
        int stem = stem_length(start, (int)(end - start));
        if (stem > 0) return strndup(start, (size_t)stem);
        if (start == files) break;
    }
    return strdup("data");
}

static err *check_names(const node *root, const char *path, source_config *list, int count) {
    const node *items = node_at(root, path);
    for (int i = 0; i < count; i++) {
        if (!list[i].name) list[i].name = default_name(list[i].files);
        if (!list[i].name) return err_new(ERR_SYSTEM, "out of memory reading the config");
        for (int j = 0; j < i; j++) {
            if (strcmp(list[i].name, list[j].name)) continue;
            char shown[SHOWN_BYTES];
            show_text(shown, list[i].name);
            return place_error(
                &node_item(items, i)->at,
                "%s: found two sources named %s (number %d and %d), expected different names: give `name`",
                path, shown, j + 1, i + 1);
        }
    }
    return NULL;
}

static err *check_train_names(const node *root, config *c) {
    return check_names(root, "data.train", c->data.train, c->data.n_train);
}

static err *check_valid_names(const node *root, config *c) {
    return check_names(root, "data.valid", c->data.valid, c->data.n_valid);
}

err *config_check(const node *root, config *c) {
    static err *(*const check[])(const node *, config *) = {
        check_dus,    check_scales, check_batch,       check_tokens,      check_schedule,
        check_layout, check_eval,   check_train_names, check_valid_names,
    };
    err *e = NULL;
    for (size_t i = 0; !e && i < sizeof check / sizeof check[0]; i++) e = check[i](root, c);
    return e;
}
