// Keys that depend on each other, and the values that other keys decide.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_parts.h"
#include "deadline.h"
#include "lr.h"
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

static err *check_gradients(const node *root, config *c) {
    if (c->train.grad_accum == DT_F32 || c->train.precision == DT_BF16) return NULL;
    return place_error(place_of(root, "train.grad_accum"),
                       "train.grad_accum: found bf16 with train.precision fp32, expected fp32: gradients are "
                       "kept in the type of the arithmetic, or in fp32");
}

// Token positions are kept in 64 bits; leave room for sums over ranks.
static err *check_tokens(const node *root, config *c) {
    double tokens = (double)c->train.steps * (double)c->train.global_batch * (double)c->data.seq_len;
    if (tokens < 1e18) return NULL;
    return place_error(
        place_of(root, "train.steps"),
        "train.steps: found steps x global_batch x seq_len = %.3g tokens, expected less than 1e18", tokens);
}

// ---- the schedule of the learning rate

// A phase of the schedule, for messages.
typedef struct phase_keys {
    char path[48];      // "schedule", "schedule.phases[0]"
    const char *length; // what its length follows from
    const node *root, *item;
} phase_keys;

static const place *phase_place(const phase_keys *k, const char *key) {
    char path[64];
    const node *n = k->item ? node_find(k->item, key) : NULL;
    if (n) return &n->at;
    if (k->item) return &k->item->at;
    snprintf(path, sizeof path, "schedule.%s", key);
    return place_of(k->root, path);
}

static err *check_length(const phase_keys *k, const schedule_phase *p) {
    if (p->warmup + p->decay <= p->steps) return NULL;
    return place_error(phase_place(k, p->decay ? "decay" : "warmup"),
                       "%s: found warmup %lld + decay %lld = %lld steps, expected at most %s, which is %lld",
                       k->path, (long long)p->warmup, (long long)p->decay, (long long)(p->warmup + p->decay),
                       k->length, (long long)p->steps);
}

static err *check_shape(const phase_keys *k, const schedule_phase *p) {
    static const char *const name[] = {"wsd", "cosine", "linear", "constant"};
    if (p->decay > 0 && p->kind != SCHED_WSD)
        return place_error(phase_place(k, "decay"),
                           "%s.decay: found %lld with %s.kind %s, expected none: only wsd uses it", k->path,
                           (long long)p->decay, k->path, name[p->kind]);
    if (p->min_lr > 0 && p->kind == SCHED_CONSTANT)
        return place_error(
            phase_place(k, "min_lr"),
            "%s.min_lr: found %g with %s.kind constant, expected none: wsd, cosine and linear use it",
            k->path, p->min_lr, k->path);
    if (p->min_lr > p->lr)
        return place_error(phase_place(k, "min_lr"), "%s.min_lr: found %g, expected at most %s, which is %g",
                           k->path, p->min_lr, k->item ? "lr" : "optimizer.lr", p->lr);
    return check_length(k, p);
}

static err *check_schedule(const node *root, config *c) {
    err *e = NULL;
    int64_t end, before = 0;
    const node *phases = node_at(root, "schedule.phases");
    for (int i = 0; i <= c->schedule.n_phases; i++) {
        phase_keys k = {.path = "schedule", .root = root, .item = i ? node_item(phases, i - 1) : NULL};
        if (i) snprintf(k.path, sizeof k.path, "schedule.phases[%d]", i - 1);
        if (i && c->schedule.phases[i - 1].lr == 0) c->schedule.phases[i - 1].lr = c->optimizer.lr;
        schedule_phase p = schedule_part(c, i, &end);
        bool given = i ? c->schedule.phases[i - 1].steps : c->schedule.steps;
        k.length = given                      ? "its steps"
                   : c->schedule.n_phases > 0 ? "the distance to the next phase or the end"
                                              : "train.steps";
        if (i && (p.at <= before || p.at >= c->train.steps))
            return place_error(
                phase_place(&k, "at"),
                "%s.at: found %lld, expected more than %lld and less than train.steps, which is %lld", k.path,
                (long long)p.at, (long long)before, (long long)c->train.steps);
        before = p.at;
        if ((e = check_shape(&k, &p))) return e;
    }
    return NULL;
}

// ---- the blend

static double sum_of(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum;
}

static err *check_change(const node *item, const config *c, int i) {
    const blend_config *b = &c->data.blend[i];
    long long before = i ? c->data.blend[i - 1].at : 0;
    if (b->at <= before)
        return place_error(&item->at,
                           "data.blend[%d].at: found %lld, expected more than %lld, the change before it", i,
                           (long long)b->at, before);
    if (b->n_weights != c->data.n_train)
        return place_error(
            &item->at,
            "data.blend[%d].weights: found %d, expected one for each of the %d sources of data.train", i,
            b->n_weights, c->data.n_train);
    double sum = sum_of(b->weights, b->n_weights);
    if (sum > 0 && sum <= 1e300) return NULL;
    return place_error(&item->at, "data.blend[%d].weights: found a sum of %g, expected one above 0", i, sum);
}

static err *check_blend(const node *root, config *c) {
    const node *changes = node_at(root, "data.blend");
    double first = 0;
    for (int i = 0; i < c->data.n_train; i++) first += c->data.train[i].weight;
    if (!(first > 0 && first <= 1e300))
        return place_error(place_of(root, "data.train"),
                           "data.train: found weights with a sum of %g, expected one above 0", first);
    for (int i = 0; i < c->data.n_blend; i++) {
        err *e = check_change(node_item(changes, i), c, i);
        if (e) return e;
    }
    for (int s = 0; s < c->data.n_train; s++) {
        double most = c->data.train[s].weight;
        for (int i = 0; i < c->data.n_blend; i++)
            if (c->data.blend[i].weights[s] > most) most = c->data.blend[i].weights[s];
        if (most == 0)
            return place_error(
                &node_item(node_at(root, "data.train"), s)->at,
                "data.train[%d].weight: found 0 in every blend, expected more in one: it is never used", s);
    }
    return NULL;
}

static err *check_layout(const node *root, config *c) {
    long long stages = c->mesh.pipeline * c->mesh.interleave;
    int count = c->mesh.n_layers_per_stage;
    if (c->mesh.interleave > 1 && c->mesh.pipeline == 1)
        return place_error(place_of(root, "mesh.interleave"),
                           "mesh.interleave: found %lld, expected 1 with mesh.pipeline 1",
                           (long long)c->mesh.interleave);
    if (count == 0 || count == stages) return NULL;
    return place_error(place_of(root, "mesh.layout"),
                       "mesh.layout: found %d numbers, expected one for each of mesh.pipeline x "
                       "mesh.interleave, which is %lld",
                       count, stages);
}

static err *check_auto(const node *root, config *c) {
    if (!c->mesh.automatic || !c->mesh.layers_per_stage) return NULL;
    return place_error(
        place_of(root, "mesh.layout"),
        "mesh.layout: found beside mesh.auto, expected none: a layout is of one pipeline size");
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

static err *check_deadline(const node *root, config *c) {
    double when;
    if (!c->run.deadline || deadline_parse(c->run.deadline, &when)) return NULL;
    char shown[SHOWN_BYTES];
    show_text(shown, c->run.deadline);
    return place_error(place_of(root, "run.deadline"),
                       "run.deadline: found %s, expected a time such as 2030-12-31T23:59:00", shown);
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
        check_dus,         check_scales,      check_batch,    check_gradients, check_tokens,
        check_schedule,    check_blend,       check_layout,   check_auto,      check_eval,
        check_train_names, check_valid_names, check_deadline,
    };
    err *e = NULL;
    for (size_t i = 0; !e && i < sizeof check / sizeof check[0]; i++) e = check[i](root, c);
    return e;
}
