// The cells of a sweep: which layers, how many steps, with which arguments.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "depth.h"
#include "engine.h"
#include "fsutil.h"
#include "status.h"
#include "sweep.h"

// ---- depth plans as lists of donors in the base: 0..n-1, or n..2n-1 for a new copy of donor - n that begins
// as zeros

typedef struct donors {
    int n;
    int *of;
    int count;
} donors;

static err *donors_new(int n, int count, donors *out) {
    *out = (donors){.n = n, .count = count, .of = calloc((size_t)count + 1, sizeof(int))};
    return out->of ? NULL : err_new(ERR_SYSTEM, "out of memory for a depth plan");
}

static err *plan_m(int n, int64_t m, donors *out) {
    if (m >= n) return err_new(ERR_CONFIG, "m = %lld, but the base has %d layers", (long long)m, n);
    int half = n - (int)m;
    err *e = donors_new(n, 2 * half, out);
    for (int i = 0; !e && i < half; i++) {
        out->of[i] = i;
        out->of[half + i] = (int)m + i;
    }
    return e;
}

static const layout_shape whole = {.pp = 1, .interleave = 1}; // only sizes are asked for

static uint64_t mix(uint64_t x) { // splitmix64 (Steele, Lea, Flood 2014)
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

// As many layers as m gives, each a copy of a layer drawn by chance (with replacement), kept in the base's
// order.
static err *plan_random(int n, int64_t m, int64_t seed, donors *out) {
    int count = 2 * (n - (int)m);
    err *e = donors_new(n, count, out);
    for (int i = 0; !e && i < count; i++)
        out->of[i] = (int)(mix((uint64_t)seed * 1000003 + (uint64_t)m * 1009 + (uint64_t)i) % (uint64_t)n);
    if (!e) qsort(out->of, (size_t)count, sizeof(int), ascending);
    return e;
}

// The base with new layers that begin as zeros spread evenly behind its own, as many as make it as deep.
static err *plan_insert(int n, int64_t m, donors *out) {
    int count = 2 * (n - (int)m), fresh = count - n, k = 0;
    if (fresh < 0)
        return err_new(ERR_CONFIG, "insert for m = %lld: %d layers are fewer than the base's %d",
                       (long long)m, count, n);
    err *e = donors_new(n, count, out);
    for (int i = 0; !e && i < n; i++) {
        out->of[k++] = i;
        for (int have = i * fresh / n; have < (i + 1) * fresh / n; have++) out->of[k++] = n + i;
    }
    return e;
}

static err *plan_ranges(int n, const char *ranges, donors *out) {
    depth_plan *p = NULL;
    err *e = depth_from_ranges(n, ranges, &p);
    if (!e) e = donors_new(n, p->layers, out);
    for (int i = 0; !e && i < p->layers; i++) out->of[i] = p->donor[i] + (p->init[i] == LAYER_ZERO ? n : 0);
    depth_free(p);
    return e;
}

// In the words of model.dus.layers. `in` maps layers of the base to those of the model that it is cut from.
static char *donors_text(const donors *d, const donors *in) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    for (int i = 0; f && i < d->count; i++)
        fprintf(f, "%s%d%s", i ? "," : "", in->of[d->of[i] % d->n], d->of[i] >= d->n ? "z" : "");
    if (f) fclose(f);
    return text;
}

// ---- cells

const char *cell_kind_name(const cell *c, char out[32]) {
    static const char *const words[] = {"pretrain", "base", "m", "random m", "insert m", "layers"};
    if (c->m < 0 || c->kind == CELL_LAYERS)
        snprintf(out, 32, "%s%s", words[c->kind], "");
    else
        snprintf(out, 32, "%s=%lld", words[c->kind], (long long)c->m);
    if (c->kind == CELL_LAYERS) snprintf(out, 32, "layers %lld", (long long)c->m + 1);
    return out;
}

const char *cell_ranks_text(const sweep *s, const cell *c, char out[24]) {
    snprintf(out, 24, s->with_ranks ? "%lld" : "-", (long long)c->ranks);
    return out;
}

static err *measure(const sweep *s, cell *c, const char *model) {
    err *e = NULL;
    blueprint b = {.base = NULL};
    depth_ask ask = {.m = -1, .layers = c->layers};
    TRY(blueprint_make(model, &ask, &whole, &b));
    c->parameters = spec_parameters(b.spec);
    c->flop = 6.0 * (double)c->parameters + 12.0 * (double)b.spec->layers *
                                                (double)(b.spec->heads * b.spec->head_dim) *
                                                (double)s->config->data.seq_len;
done:
    blueprint_free(&b);
    return e;
}

static err *name_cell(const sweep *s, cell *c) {
    static const char *const short_names[] = {"pretrain", "base", "m", "random", "insert", "layers"};
    char depth[24] = "", ranks[24] = "";
    if (c->kind >= CELL_DUS)
        snprintf(depth, sizeof depth, "%lld", (long long)c->m + (c->kind == CELL_LAYERS));
    if (s->n_ranks > 1) snprintf(ranks, sizeof ranks, "-r%lld", (long long)c->ranks);
    int n = c->kind == CELL_PRETRAIN
                ? asprintf(&c->name, "%s-pretrain", s->base[c->base].name)
                : asprintf(&c->name, "%s-%s%s-seed%lld%s%s", s->base[c->base].name, short_names[c->kind],
                           depth, (long long)c->seed, ranks, c->equal == EQUAL_FLOP ? "-flop" : "");
    if (n < 0 || asprintf(&c->dir, "%s/cells/%s", s->dir, c->name) < 0)
        return err_new(ERR_SYSTEM, "out of memory");
    return NULL;
}

static err *add_cell(sweep *s, cell c, const donors *d, const donors *in) {
    err *e = NULL;
    cell *more = realloc(s->cell, (size_t)(s->cells + 1) * sizeof *more);
    if (!more) FAIL(ERR_SYSTEM, "out of memory for cells");
    s->cell = more;
    c.layers = donors_text(d, in);
    c.depth = d->count;
    c.n = d->n;
    s->cell[s->cells++] = c;
    cell *mine = &s->cell[s->cells - 1];
    if (!mine->layers) FAIL(ERR_SYSTEM, "out of memory for cells");
    TRY(name_cell(s, mine));
    TRY(measure(s, mine, s->base[c.base].model)); // as deep as what it makes, whichever model is read
done:
    return e;
}

// One cell for each seed, number of ranks and budget.
static err *add_group(sweep *s, cell c, const donors *d, const donors *in) {
    err *e = NULL;
    donors drawn = {.n = 0};
    for (int k = 0; k < 2; k++)
        for (int i = 0; s->equal[k] && i < s->n_seed; i++)
            for (int r = 0; r < s->n_ranks; r++) {
                c.equal = (equal_kind)k;
                c.seed = s->seed[i];
                c.ranks = s->ranks[r];
                if (c.kind == CELL_RANDOM) {
                    free(drawn.of);
                    TRY(plan_random(in->count, c.m, c.seed, &drawn));
                }
                TRY(add_cell(s, c, c.kind == CELL_RANDOM ? &drawn : d, in));
            }
done:
    free(drawn.of);
    return e;
}

typedef err *planner(int n, int64_t m, donors *out);

static err *add_depths(sweep *s, cell c, cell_kind kind, planner *plan, const donors *in) {
    err *e = NULL;
    donors d = {.n = 0};
    c.kind = kind;
    for (int i = 0; i < s->n_m; i++) {
        c.m = s->m[i];
        free(d.of);
        d = (donors){.n = 0};
        TRY(plan(in->count, c.m, &d));
        TRY(add_group(s, c, &d, in));
    }
done:
    free(d.of);
    return e;
}

static err *add_layers(sweep *s, cell c, const donors *in) {
    err *e = NULL;
    donors d = {.n = 0};
    c.kind = CELL_LAYERS;
    for (int i = 0; i < s->n_layers; i++) {
        c.m = i;
        free(d.of);
        d = (donors){.n = 0};
        TRY(plan_ranges(in->count, s->layers[i], &d));
        TRY(add_group(s, c, &d, in));
    }
done:
    free(d.of);
    return e;
}

// Layers of the model that base i consists of: `cut`; the same counted from 0: `own`.
static err *base_layers(const sweep *s, int i, donors *cut, donors *own) {
    err *e = NULL;
    blueprint b = {.base = NULL};
    depth_ask none = {.m = -1};
    TRY(blueprint_make(s->base[i].model, &none, &whole, &b));
    int n = b.base->layers;
    TRY(s->base[i].layers ? plan_ranges(n, s->base[i].layers, cut) : plan_m(n, 0, cut));
    if (!s->base[i].layers) cut->count = n;
    TRY(donors_new(cut->count, cut->count, own));
    for (int k = 0; k < own->count; k++) own->of[k] = k;
done:
    blueprint_free(&b);
    return e;
}

static err *add_base(sweep *s, int i) {
    err *e = NULL;
    donors cut = {.n = 0}, own = {.n = 0};
    cell c = {.base = i, .m = -1, .waits_for = -1, .seed = s->config->run.seed, .ranks = s->ranks[0]};
    TRY(base_layers(s, i, &cut, &own));
    if (s->base[i].tokens) {
        c.kind = CELL_PRETRAIN;
        TRY(add_cell(s, c, &own, &cut));
        c.waits_for = s->cells - 1;
    }
    const donors *in = c.waits_for < 0 ? &cut : &own;
    c.kind = CELL_BASE;
    if (s->with_base) TRY(add_group(s, c, &own, in));
    TRY(add_depths(s, c, CELL_DUS, plan_m, in));
    TRY(add_layers(s, c, in));
    if (s->with_random) TRY(add_depths(s, c, CELL_RANDOM, plan_m, in));
    if (s->with_insert) TRY(add_depths(s, c, CELL_INSERT, plan_insert, in));
done:
    free(cut.of);
    free(own.of);
    return err_wrap(e, "base %s", s->base[i].name);
}

// ---- budgets

// Equal FLOP means those of the most expensive cell over the budget of tokens.
static void set_steps(const sweep *s, cell *c, double most) {
    const config *g = s->config;
    int64_t budget = c->kind == CELL_PRETRAIN ? s->base[c->base].tokens : s->tokens;
    double tokens = (double)budget * (c->equal == EQUAL_FLOP ? most / c->flop : 1);
    c->global_batch = g->train.global_batch * (s->weak ? c->ranks : 1);
    if (s->weak) tokens *= (double)c->ranks;
    c->steps = (int64_t)llround(tokens / (double)(c->global_batch * g->data.seq_len));
    if (c->steps < 1) c->steps = 1;
    c->tokens = c->steps * c->global_batch * g->data.seq_len;
}

// Every number of ranks must be one that the config's mesh and batch can be split over.
static err *check_ranks(const sweep *s, const cell *c) {
    const config *g = s->config;
    int64_t stage = g->mesh.pipeline * g->mesh.tensor, per = c->ranks / stage * g->train.micro_batch;
    if (!s->with_ranks || g->mesh.automatic) return NULL;
    if (c->ranks % stage)
        return err_new(
            ERR_CONFIG,
            "%s: ranks %lld: expected a multiple of %lld, the stages x shards of the config's mesh", s->file,
            (long long)c->ranks, (long long)stage);
    if (c->global_batch % per)
        return err_new(
            ERR_CONFIG,
            "%s: ranks %lld: a global batch of %lld is not a multiple of %lld data ranks x micro_batch %lld: "
            "choose a smaller train.micro_batch or a larger train.global_batch in %s",
            s->file, (long long)c->ranks, (long long)c->global_batch, (long long)(c->ranks / stage),
            (long long)g->train.micro_batch, s->config_path);
    return NULL;
}

err *sweep_plan(sweep *s) {
    err *e = NULL;
    double most = 0;
    for (int i = 0; i < s->n_base; i++) TRY(add_base(s, i));
    for (int i = 0; i < s->cells; i++)
        if (s->cell[i].flop > most) most = s->cell[i].flop;
    for (int i = 0; i < s->cells; i++) set_steps(s, &s->cell[i], most);
    for (int i = 0; i < s->cells; i++) TRY(check_ranks(s, &s->cell[i]));
    if (!s->cells) FAIL(ERR_CONFIG, "%s: no cells: expected m, layers or baselines", s->file);
done:
    return e;
}

// ---- running a cell

static err *add_setting(char **list, int *n, const char *format, ...) __attribute__((format(printf, 3, 4)));
static err *add_setting(char **list, int *n, const char *format, ...) {
    va_list a;
    va_start(a, format);
    list[*n] = strdup("--set");
    int length = vasprintf(&list[*n + 1], format, a);
    va_end(a);
    if (length < 0 || !list[*n]) return err_new(ERR_SYSTEM, "out of memory for arguments");
    *n += 2;
    return NULL;
}

// Lengths in steps of the config keep their share of the whole.
static int64_t stretched(const sweep *s, const cell *c, int64_t length) {
    double share = (double)c->steps / (double)s->config->train.steps;
    int64_t n = llround((double)length * share);
    return length && !n ? 1 : n;
}

// Does a cell measure its base's own loss? Not if the base has a cell, nor if it is no model by itself.
static bool measures_base(const sweep *s, const cell *c) {
    return !s->with_base && (c->waits_for >= 0 || !s->base[c->base].layers);
}

err *cell_arguments(const sweep *s, const cell *c, char ***out) {
    err *e = NULL;
    int n = 0;
    char **list = *out = calloc(32, sizeof *list);
    if (!list || !(list[n++] = strdup(s->config_path))) FAIL(ERR_SYSTEM, "out of memory for arguments");
    const char *made = c->waits_for < 0 ? NULL : s->cell[c->waits_for].dir;
    TRY(add_setting(list, &n, "run.dir=%s", c->dir));
    TRY(add_setting(list, &n, "run.seed=%lld", (long long)c->seed));
    TRY(add_setting(list, &n, "model.base=%s%s", made ? made : s->base[c->base].model,
                    made ? "/latest" : ""));
    TRY(add_setting(list, &n, "model.dus.layers=[%s]", c->layers));
    if (!measures_base(s, c)) TRY(add_setting(list, &n, "eval.base=false"));
    TRY(add_setting(list, &n, "train.steps=%lld", (long long)c->steps));
    TRY(add_setting(list, &n, "train.global_batch=%lld", (long long)c->global_batch));
    TRY(add_setting(list, &n, "schedule.warmup=%lld",
                    (long long)stretched(s, c, s->config->schedule.warmup)));
    TRY(add_setting(list, &n, "schedule.decay=%lld", (long long)stretched(s, c, s->config->schedule.decay)));
    TRY(add_setting(list, &n, "eval.every=%lld", (long long)stretched(s, c, s->config->eval.every)));
done:
    return e;
}

bool cell_done(const cell *c) {
    run_status s;
    if (!is_dir(c->dir)) return false;
    err *e = status_read(c->dir, &s);
    bool done = !e && s.phase == RUN_DONE && s.checkpoint >= c->steps;
    if (!e) status_free(&s);
    err_free(e);
    return done;
}

bool cell_ready(const sweep *s, const cell *c) {
    return c->waits_for < 0 || cell_done(&s->cell[c->waits_for]);
}
