#include "recommend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fsutil.h"
#include "log.h"
#include "plan.h"
#include "project.h"

enum { MOST_INTERLEAVE = 4, MOST_MICRO_BATCH = 64, SHOWN = 5 };

// A config with a candidate's choices, for the step's own global batch or a shorter step.
static config choose(const config *c, const candidate *k, int64_t global_batch) {
    config out = *c; // borrows what it points to
    out.mesh.pipeline = k->pp;
    out.mesh.tensor = k->tp;
    out.mesh.interleave = k->interleave;
    out.mesh.layers_per_stage = NULL;
    out.mesh.n_layers_per_stage = 0;
    out.train.micro_batch = k->micro_batch;
    out.train.recompute = k->recompute;
    out.train.global_batch = global_batch;
    return out;
}

static err *draw(const config *c, blueprint *b) {
    depth_ask ask = config_depth(c);
    layout_shape stages = plan_layout(c);
    return blueprint_make(c->model.base, &ask, &stages, b);
}

// ---- does it fit?

static err *fullest_rank(const config *c, const blueprint *b, int world, double *bytes) {
    err *e = NULL;
    part *p = NULL;
    mesh m;
    part_shape shape;
    TRY(mesh_make(world, 0, (int)c->mesh.pipeline, (int)c->mesh.tensor, c->mesh.order, &m));
    *bytes = 0;
    for (m.p = 0; m.p < m.pp; m.p++) {
        m.rank = mesh_rank(&m, 0, m.p, 0);
        TRY(plan_shape(c, &m, &shape));
        TRY(part_make(b->spec, b->plan, b->stages, b->table, &m, &shape, NULL, &p));
        *bytes = fmax(*bytes, (double)arena_total(&p->mem));
        part_free(p);
        p = NULL;
    }
done:
    part_free(p);
    return e;
}

// The least recomputation that fits; *fits false when not even the most does.
static err *make_fit(const config *c, const blueprint *b, recommendation *r, candidate *k, bool *fits) {
    *fits = false;
    int least = (int)c->train.recompute, most = least ? least : RECOMPUTE_FULL; // one that is given stays
    for (int kind = least; kind <= most && !*fits; kind++) {
        k->recompute = (recompute_kind)kind;
        config trial = choose(c, k, c->train.global_batch);
        err *e = fullest_rank(&trial, b, r->world, &k->bytes);
        if (e) return e;
        if (r->least_bytes == 0 || k->bytes < r->least_bytes) r->least_bytes = k->bytes;
        *fits = k->bytes <= r->machine.memory;
    }
    return NULL;
}

// ---- how long would it take?

static candidate measure(const projection *p) {
    candidate k = {.step = p->sim.step};
    for (int i = 0; i < p->sim.ranks; i++) {
        const rank_time *t = &p->sim.rank[i];
        k.compute += t->compute / p->sim.ranks;
        k.tensor += t->tensor / p->sim.ranks;
        k.other += (t->together - t->tensor) / p->sim.ranks;
    }
    return k;
}

// A pipeline that is full repeats itself: two short steps tell what each further micro-batch takes.
static double extend(double shorter, double longer, double share) {
    return shorter + (longer - shorter) * share;
}

static err *time_step(const config *c, const blueprint *b, const recommendation *r, candidate *k) {
    err *e = NULL;
    candidate got[2];
    int dp = r->world / k->pp / k->tp;
    int64_t micro = c->train.global_batch / dp / k->micro_batch, few = 2 * (int64_t)k->pp * k->interleave;
    int64_t count[2] = {few, few + k->pp};
    double share = (double)(micro - count[0]) / k->pp;
    if (micro <= count[1]) count[0] = count[1] = micro, share = 0;
    for (int i = 0; i < 2; i++) {
        projection p;
        config trial = choose(c, k, count[i] * dp * k->micro_batch);
        TRY(project(&trial, b, r->world, 1, &r->machine, &p));
        got[i] = measure(&p);
        projection_free(&p);
    }
    k->step = extend(got[0].step, got[1].step, share);
    k->compute = extend(got[0].compute, got[1].compute, share);
    k->tensor = extend(got[0].tensor, got[1].tensor, share);
    k->other = extend(got[0].other, got[1].other, share);
    k->waiting = fmax(0, k->step - k->compute - k->tensor - k->other); // rounding aside, never negative
done:
    return e;
}

// ---- all of them

static err *append(recommendation *r, const candidate *k) {
    candidate *more = realloc(r->best, (size_t)(r->count + 1) * sizeof *more);
    if (!more) return err_new(ERR_SYSTEM, "out of memory for a choice of meshes");
    r->best = more;
    r->best[r->count++] = *k;
    return NULL;
}

// What makes a mesh illegal is no error here; *why keeps the last such reason.
static err *try_candidate(const config *c, recommendation *r, candidate k, err **why) {
    err *e = NULL;
    blueprint b = {0};
    bool fits;
    config trial = choose(c, &k, c->train.global_batch);
    err *illegal = draw(&trial, &b);
    if (!illegal) illegal = plan_check(&trial, &b, r->world);
    if (illegal) {
        err_free(*why);
        *why = illegal;
        if (err_get_code(illegal) == ERR_CONFIG) goto done;
        *why = NULL;
        e = illegal;
        goto done;
    }
    r->legal++;
    TRY(make_fit(c, &b, r, &k, &fits));
    if (!fits) {
        r->too_large++;
        goto done;
    }
    TRY(time_step(c, &b, r, &k));
    TRY(append(r, &k));
done:
    blueprint_free(&b);
    return e;
}

// A size that the config gives (not its default, 1) is the only one.
static bool is_free(int64_t given, int64_t size) { return given == 1 || given == size; }

// With as many virtual stages as the config gives, else one.
static err *try_mesh(const config *c, recommendation *r, int pp, int tp, err **why) {
    err *e = NULL;
    int64_t share = c->train.global_batch / (r->world / pp / tp), given = c->train.micro_batch;
    int64_t largest = given > 1 ? given : share < MOST_MICRO_BATCH ? share : MOST_MICRO_BATCH;
    candidate k = {.pp = pp, .tp = tp, .interleave = (int)c->mesh.interleave};
    for (k.micro_batch = given; k.micro_batch <= largest || k.micro_batch == given; k.micro_batch *= 2)
        TRY(try_candidate(c, r, k, why));
done:
    return e;
}

static int by_step(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return (x->step > y->step) - (x->step < y->step);
}

static void sort(recommendation *r) { qsort(r->best, (size_t)r->count, sizeof *r->best, by_step); }

// Interleaving takes from the waiting only, so meshes that lose even without any need not be tried with it.
static err *try_interleaved(const config *c, recommendation *r, err **why) {
    err *e = NULL;
    int plain = r->count;
    double best = r->best[0].step;
    for (int i = 0; i < plain && c->mesh.interleave == 1; i++)
        for (int v = 2; v <= MOST_INTERLEAVE; v++) {
            candidate k = r->best[i];
            if (k.pp == 1 || k.step - k.waiting > best) break;
            k.interleave = v;
            TRY(try_candidate(c, r, k, why));
        }
done:
    return e;
}

static err *none(const recommendation *r, err *why) {
    char least[32], memory[32];
    if (!r->legal)
        return err_new(ERR_CONFIG, "mesh auto: no mesh of %d ranks is legal: %s", r->world,
                       why ? err_text(why) : "ranks are not a multiple of any pipeline x tensor");
    format_bytes(least, r->least_bytes);
    format_bytes(memory, r->machine.memory);
    return err_new(
        ERR_CONFIG,
        "mesh auto: none of %d meshes of %d ranks fits the %s of %s: the leanest needs %s a rank. Use more "
        "ranks, a shorter data.seq_len, or a larger machine",
        r->legal, r->world, memory, r->machine.name, least);
}

err *recommend(const config *c, int world, const machine *m, recommendation *out) {
    err *e = NULL, *why = NULL;
    int most = m->node < world ? (int)m->node : world;
    *out = (recommendation){.world = world, .machine = *m};
    for (int tp = 1; tp <= most; tp++)
        for (int pp = 1; pp * tp <= world; pp++)
            if (world % (pp * tp) == 0 && is_free(c->mesh.pipeline, pp) && is_free(c->mesh.tensor, tp))
                TRY(try_mesh(c, out, pp, tp, &why));
    if (!out->count) {
        e = none(out, why);
        goto done;
    }
    sort(out);
    TRY(try_interleaved(c, out, &why));
    sort(out);
done:
    err_free(why);
    if (e) recommendation_free(out);
    return e;
}

void recommendation_free(recommendation *r) {
    free(r->best);
    *r = (recommendation){0};
}

// ---- telling

static const char *recompute_name(recompute_kind k) {
    static const char *const name[] = {"none", "selective", "full"};
    return name[k];
}

typedef struct reason {
    const char *text;
    double seconds;
} reason;

// What takes the most time beyond arithmetic, or arithmetic itself.
static const char *bound(const candidate *k) {
    double most = fmax(fmax(k->tensor, k->other), k->waiting);
    if (k->compute >= 0.9 * k->step || most < 0.03 * k->step) return "arithmetic bounds it";
    if (most == k->waiting) return "then waiting in the pipeline bounds it";
    return most == k->tensor ? "then sums over tensor ranks bound it" : "then sums over data ranks bound it";
}

static const char *loses_by(const candidate *k, const candidate *best) {
    const reason list[] = {
        {k->recompute > best->recompute ? "computes more again" : "slower operations",
         k->compute - best->compute},
        {"longer sums over tensor ranks", k->tensor - best->tensor},
        {"longer sums over data ranks", k->other - best->other},
        {"more waiting in the pipeline", k->waiting - best->waiting},
    };
    const reason *most = list;
    for (const reason *x = list; x < list + 4; x++)
        if (x->seconds > most->seconds) most = x;
    return most->text;
}

static void print_candidate(FILE *out, const recommendation *r, int i) {
    const candidate *k = &r->best[i], *best = &r->best[0];
    char bytes[32];
    format_bytes(bytes, k->bytes);
    fprintf(out, "%9d data %d x pipeline %d", i + 1, r->world / k->pp / k->tp, k->pp);
    if (k->interleave > 1) fprintf(out, " (interleave %d)", k->interleave);
    fprintf(out, " x tensor %d, micro_batch %lld, recompute %s: %.4g s, %s a rank; ", k->tp,
            (long long)k->micro_batch, recompute_name(k->recompute), k->step, bytes);
    fprintf(out, "compute %.0f %%, tensor %.0f %%, data %.0f %%, waiting %.0f %%; ",
            100 * k->compute / k->step, 100 * k->tensor / k->step, 100 * k->other / k->step,
            100 * k->waiting / k->step);
    if (i == 0)
        fprintf(out, "%s\n", bound(k));
    else
        fprintf(out, "+%.1f %%: %s\n", 100 * (k->step / best->step - 1), loses_by(k, best));
}

void recommendation_print(FILE *out, const recommendation *r) {
    char memory[32];
    format_bytes(memory, r->machine.memory);
    fprintf(out,
            "auto      %d meshes of %d ranks on %s: %d do not fit %s, even with full recomputation; the "
            "quickest:\n",
            r->legal, r->world, r->machine.name, r->too_large, memory);
    for (int i = 0; i < r->count && i < SHOWN; i++) print_candidate(out, r, i);
}

void recommendation_apply(const recommendation *r, config *c) {
    const candidate *k = &r->best[0];
    c->mesh.pipeline = k->pp;
    c->mesh.tensor = k->tp;
    c->mesh.interleave = k->interleave;
    c->train.micro_batch = k->micro_batch;
    c->train.recompute = k->recompute;
    c->mesh.automatic = false;
}

// ---- for a run

static bool is_legal(const config *c, int world) {
    blueprint b = {0};
    err *illegal = draw(c, &b);
    if (!illegal) illegal = plan_check(c, &b, world);
    blueprint_free(&b);
    bool legal = !illegal;
    err_free(illegal);
    return legal;
}

// Takes over the choice of an earlier life; false when there is none that is legal now.
static bool keep(config *c, const config *before, int world) {
    candidate k = {.pp = (int)before->mesh.pipeline,
                   .tp = (int)before->mesh.tensor,
                   .interleave = (int)before->mesh.interleave,
                   .micro_batch = before->train.micro_batch,
                   .recompute = before->train.recompute};
    recommendation r = {.world = world, .best = &k, .count = 1};
    config trial = choose(c, &k, c->train.global_batch);
    if (!is_legal(&trial, world)) return false;
    recommendation_apply(&r, c);
    return true;
}

static bool keep_earlier(config *c, int world) {
    char *path = path_join(c->run.dir, "config.yaml"), *text = NULL;
    config *before = NULL;
    size_t bytes;
    err *e = path_exists(path) ? read_file(path, 1 << 20, &text, &bytes) : NULL;
    if (!e && text) e = config_parse(text, path, &before);
    bool kept = before && keep(c, before, world);
    if (e) log_warn("%s; the mesh is chosen anew", err_text(e));
    err_free(e);
    config_free(before);
    free(text);
    free(path);
    return kept;
}

err *recommend_for_run(config *c, int world) {
    err *e = NULL;
    machine m;
    recommendation r = {0};
    if (keep_earlier(c, world)) {
        log_info("mesh auto: pipeline %lld (interleave %lld) x tensor %lld, micro_batch %lld, recompute %s, "
                 "as the run has had",
                 (long long)c->mesh.pipeline, (long long)c->mesh.interleave, (long long)c->mesh.tensor,
                 (long long)c->train.micro_batch, recompute_name(c->train.recompute));
        return NULL;
    }
    if (!c->mesh.machine && strcmp(c->train.device, "cpu") != 0)
        FAIL(ERR_CONFIG, "mesh.auto: found no mesh.machine, expected the name of a machine "
                         "(slurm/machines.yaml) to choose "
                         "a mesh for");
    TRY(machine_load(NULL, plan_machine(c), &m));
    TRY(recommend(c, world, &m, &r));
    recommendation_print(stderr, &r);
    recommendation_apply(&r, c);
done:
    recommendation_free(&r);
    return e;
}
