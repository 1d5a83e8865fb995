// solar verify's comparison: which plan, which architecture, then every byte.
#include "verify.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "upscale.h"

enum { BUFFER = 4 << 20 };

typedef struct job {
    const verify_options *o;
    verify_report *report;
    model_dir base, out;
    model_spec *expected; // what the plan makes of the base
    table *table;         // of `expected`
    char *a, *b;          // buffers
    uint64_t total;
    progress progress;
    double start;
} job;

// ---- the plan

static err *choose_plan(job *j) {
    err *e = NULL;
    int n = (int)j->base.spec->layers;
    verify_report *r = j->report;
    const char *stated = st_metadata(j->out.files, DEPTH_PLAN_KEY);
    r->source = PLAN_GIVEN;
    TRY(depth_options_check(&j->o->depth));
    if (depth_asked(&j->o->depth)) return depth_make(n, &j->o->depth, &r->plan);
    r->source = stated ? PLAN_STATED : PLAN_FOUND;
    if (stated)
        TRY(err_wrap(depth_from_ranges(n, stated, &r->plan), "%s: " DEPTH_PLAN_KEY, j->o->out));
    else
        TRY(find_plan(&j->base, &j->out, &r->plan));
done:
    return e;
}

static err *check_depth(const job *j) {
    const depth_plan *p = j->report->plan;
    if (p->layers == j->out.spec->layers) return NULL;
    return err_new(ERR_MISMATCH, "%s has %lld layers, the plan makes %d of the %d of the base", j->o->out,
                   (long long)j->out.spec->layers, p->layers, p->base_layers);
}

// ---- the architecture

static bool same_arithmetic(const model_spec *a, const model_spec *b) {
    bool sizes = a->layers == b->layers && a->hidden == b->hidden && a->ffn == b->ffn &&
                 a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
                 a->vocab == b->vocab && a->max_positions == b->max_positions;
    bool parts = a->qkv_bias == b->qkv_bias && a->out_bias == b->out_bias && a->mlp_bias == b->mlp_bias &&
                 a->tied == b->tied;
    bool rope = a->rope == b->rope && a->rope_theta == b->rope_theta && a->rope_factor == b->rope_factor &&
                a->rope_low_freq == b->rope_low_freq && a->rope_high_freq == b->rope_high_freq &&
                a->rope_original_positions == b->rope_original_positions;
    return sizes && parts && rope && strcmp(a->family, b->family) == 0 && a->norm_eps == b->norm_eps &&
           a->bos == b->bos && a->eos == b->eos && a->dt == b->dt &&
           memcmp(a->window, b->window, (size_t)a->layers * sizeof *a->window) == 0;
}

// The first key whose value is not the same in both, or NULL.
static const char *different_key(const json_t *a, const json_t *b) {
    const json_t *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const char *key = NULL;
        json_t *v = NULL;
        json_object_foreach((json_t *)both[i], key, v) {
            const json_t *other = json_object_get(both[1 - i], key);
            if (!other || !json_equal(v, other)) return key;
        }
    }
    return NULL;
}

// Keys without effect may differ (a tool that wrote its version, say): that is only worth a warning.
static err *check_architecture(const job *j) {
    const char *key = different_key(j->expected->config, j->out.spec->config);
    if (!same_arithmetic(j->expected, j->out.spec))
        return err_new(ERR_MISMATCH, "%s/config.json: %s is not as the base model and the plan make it",
                       j->o->out, key ? key : "a default");
    if (key)
        log_warn("%s/config.json: %s differs from the base model; what is computed does not", j->o->out, key);
    return NULL;
}

// ---- the tensors

static difference *next_difference(job *j, const tensor_row *r) {
    int i = j->report->different++;
    if (i >= MOST_DIFFERENCES) return NULL;
    difference *d = &j->report->first[i];
    memcpy(d->tensor, r->name, sizeof d->tensor);
    snprintf(d->donor, sizeof d->donor, "%s", r->zero ? "zeros" : r->donor);
    return d;
}

static void report_progress(job *j) {
    char done[32], total[32], left[32];
    double passed = now_seconds() - j->start;
    if (!j->o->progress || j->total == 0) return;
    format_bytes(done, (double)j->report->bytes);
    format_bytes(total, (double)j->total);
    format_time(left, passed * (double)(j->total - j->report->bytes) /
                          (double)(j->report->bytes ? j->report->bytes : 1));
    progress_line(&j->progress, j->progress.tty && j->report->bytes == j->total, "verify: %s of %s, %s left",
                  done, total, left);
}

static uint64_t first_different(const char *a, const char *b, uint64_t n) {
    uint64_t i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

// The tensor is its donor's bytes, or zeros.
static err *compare_bytes(job *j, const tensor_row *r, const st_tensor *mine, const st_tensor *donor) {
    bool different = false;
    if (r->zero) memset(j->b, 0, BUFFER);
    for (uint64_t at = 0, n; at < mine->bytes; at += n) {
        n = mine->bytes - at < BUFFER ? mine->bytes - at : BUFFER;
        err *e = st_read(j->out.files, mine, at, j->a, n);
        if (!e && !r->zero) e = st_read(j->base.files, donor, at, j->b, n);
        if (e) return e;
        j->report->bytes += n;
        report_progress(j);
        if (different || memcmp(j->a, j->b, (size_t)n) == 0) continue;
        different = true;
        difference *d = next_difference(j, r);
        if (d) d->byte = at + first_different(j->a, j->b, n);
    }
    return NULL;
}

static err *compare_tensor(job *j, const tensor_row *r) {
    const st_tensor *mine = st_find(j->out.files, r->name), *donor = st_find(j->base.files, r->donor);
    if (!mine || !donor) // both sides were checked against their own tables, and the specs are the same
        return err_new(ERR_RUNTIME, "tensor %s has no counterpart", r->name);
    j->report->tensors++;
    if (mine->dt == donor->dt) return compare_bytes(j, r, mine, donor);
    difference *d = next_difference(j, r);
    if (d) snprintf(d->what, sizeof d->what, "%s", st_dtype_name(mine->dt));
    return NULL;
}

static err *compare_all(job *j) {
    j->a = malloc(BUFFER);
    j->b = malloc(BUFFER);
    if (!j->a || !j->b) return err_new(ERR_SYSTEM, "no memory to compare tensors");
    for (int i = 0; i < st_count(j->out.files); i++) j->total += st_at(j->out.files, i)->bytes;
    for (int i = 0; i < j->table->count; i++) {
        err *e = compare_tensor(j, &j->table->row[i]);
        if (e) return e;
    }
    return NULL;
}

// ---- all of it

static err *verdict(const verify_report *r) {
    const difference *d = &r->first[0];
    char where[160];
    if (r->different == 0) return NULL;
    if (*d->what)
        snprintf(where, sizeof where, "is %s, unlike", d->what);
    else
        snprintf(where, sizeof where, "differs at byte %llu from", (unsigned long long)d->byte);
    return err_new(ERR_MISMATCH, "%d of %d tensors differ from their donors; the first: %s %s its donor %s",
                   r->different, r->tensors, d->tensor, where, d->donor);
}

err *verify(const verify_options *o, verify_report *report) {
    err *e = NULL;
    job j = {.o = o, .report = report, .start = now_seconds()};
    *report = (verify_report){0};
    progress_start(&j.progress);
    j.progress.last_time = j.start; // a short run needs no progress
    TRY(model_dir_open(o->base, &j.base));
    TRY(model_dir_open(o->out, &j.out));
    TRY(choose_plan(&j));
    TRY(check_depth(&j));
    TRY(spec_deepen(j.base.spec, report->plan, &j.expected));
    TRY(check_architecture(&j));
    TRY(table_make(j.expected, report->plan, NULL, &j.table));
    TRY(compare_all(&j));
    TRY(verdict(report));
done:
    report->seconds = now_seconds() - j.start;
    free(j.a);
    free(j.b);
    table_free(j.table);
    spec_free(j.expected);
    model_dir_close(&j.out);
    model_dir_close(&j.base);
    return e;
}
