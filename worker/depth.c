// Depth plans: from m, from ranges, with layers inserted, and back to text.
#include "depth.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 65536 }; // beyond this a plan is a slip of the pen; bounds the memory of a hostile one

static depth_plan *plan_new(int n, int s) {
    depth_plan *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->base_layers = n;
    p->layers = s;
    p->donor = calloc((size_t)s, sizeof *p->donor);
    p->init = calloc((size_t)s, sizeof *p->init);
    p->seam = calloc((size_t)s, sizeof *p->seam);
    if (p->donor && p->init && p->seam) return p;
    depth_free(p);
    return NULL;
}

void depth_free(depth_plan *p) {
    if (!p) return;
    free(p->donor);
    free(p->init);
    free(p->seam);
    free(p);
}

// Fills in what follows from the donors.
static void plan_finish(depth_plan *p) {
    int before = -1; // donor of the kept layer before
    p->seams = p->fresh = 0;
    p->identity = p->layers == p->base_layers;
    for (int i = 0; i < p->layers; i++) {
        if (p->donor[i] != i) p->identity = false;
        if (p->init[i] != LAYER_KEPT) {
            p->fresh++;
            continue;
        }
        if (before >= 0 && p->donor[i] != before + 1) p->seam[p->seams++] = i;
        before = p->donor[i];
    }
    if (p->fresh) p->identity = false;
}

static err *no_memory(int layers) {
    return err_new(ERR_SYSTEM, "no memory for a depth plan of %d layers", layers);
}

static err *check_base(int n) {
    if (n >= 1 && n <= MOST_LAYERS / 2) return NULL;
    return err_new(ERR_CONFIG, "a base model of %d layers cannot be deepened, expected 1 to %d", n,
                   MOST_LAYERS / 2);
}

err *depth_from_m(int n, int m, depth_plan **out) {
    err *e = check_base(n);
    if (e) return e;
    if (m < 0 || m >= n)
        return err_new(ERR_CONFIG, "m = %d: with the %d layers of this model m must be 0 to %d", m, n, n - 1);
    depth_plan *p = plan_new(n, 2 * (n - m));
    if (!p) return no_memory(2 * (n - m));
    for (int i = 0; i < n - m; i++) {
        p->donor[i] = i;
        p->donor[n - m + i] = m + i;
    }
    plan_finish(p);
    *out = p;
    return NULL;
}

err *depth_identity(int n, depth_plan **out) {
    err *e = check_base(n);
    if (e) return e;
    depth_plan *p = plan_new(n, n);
    if (!p) return no_memory(n);
    for (int i = 0; i < n; i++) p->donor[i] = i;
    plan_finish(p);
    *out = p;
    return NULL;
}

// ---- "0-23,8-31"

// A list of layers that is read: of the base model, where parts may be marked as new, or places in a plan.
typedef struct reader {
    const char *what; // "layers"
    const char *whose;
    int n; // layers there are
    bool marks;
} reader;

typedef struct part {
    int first, last;
    layer_init init;
} part;

static const char *skip_space(const char *s) {
    while (isspace((unsigned char)*s)) s++;
    return s;
}

// A layer number; false when there is none. Numbers too large for a plan come out as MOST_LAYERS.
static bool parse_layer(const char **s, int *out) {
    const char *p = skip_space(*s);
    if (!isdigit((unsigned char)*p)) return false;
    int v = 0;
    for (; isdigit((unsigned char)*p); p++) v = v >= MOST_LAYERS / 10 ? MOST_LAYERS : v * 10 + (*p - '0');
    *out = v;
    *s = skip_space(p);
    return true;
}

static layer_init parse_mark(const reader *r, const char **s) {
    layer_init mark = !r->marks ? LAYER_KEPT : **s == 'z' ? LAYER_ZERO : **s == 'c' ? LAYER_COPY : LAYER_KEPT;
    if (mark != LAYER_KEPT) *s = skip_space(*s + 1);
    return mark;
}

static err *bad_part(const reader *r, const char *text, const char *why) {
    int length = (int)strcspn(text, ","), n = r->n;
    if (length > 40) length = 40;
    return err_new(ERR_CONFIG,
                   "%s: in '%.*s': %s; expected ranges or single layers of 0 to %d, like '0-%d,%d-%d'%s",
                   r->what, length, text, why, n - 1, n - 1, n / 2, n - 1,
                   r->marks ? ", new ones with z (zero output) or c (copy) behind" : "");
}

// One part, at *s; leaves *s behind its comma.
static err *parse_part(const reader *r, const char **s, part *out) {
    const char *text = *s;
    char why[64];
    if (!parse_layer(s, &out->first)) return bad_part(r, text, "found no layer number");
    out->last = out->first;
    if (**s == '-') {
        ++*s;
        if (!parse_layer(s, &out->last)) return bad_part(r, text, "found no layer number behind '-'");
    }
    out->init = parse_mark(r, s);
    if (**s != ',' && **s != '\0') return bad_part(r, text, "found characters behind the number");
    if (out->first > out->last) return bad_part(r, text, "the range runs backwards");
    snprintf(why, sizeof why, "%s has no such layer", r->whose);
    if (out->last >= r->n) return bad_part(r, text, why);
    if (**s == ',' && *skip_space(++*s) == '\0')
        return bad_part(r, text, "found nothing behind the last comma");
    return NULL;
}

// Counts the layers, and writes them down when donor and init are not NULL.
static err *walk_parts(const reader *r, const char *ranges, int *donor, layer_init *init, int *count) {
    int total = 0;
    part p;
    const char *s = ranges;
    do {
        err *e = parse_part(r, &s, &p);
        if (e) return e;
        if (p.last - p.first + 1 > MOST_LAYERS - total)
            return err_new(ERR_CONFIG, "%s: more than %d layers in all, expected fewer", r->what,
                           MOST_LAYERS);
        for (int i = p.first; i <= p.last; i++, total++) {
            if (donor) donor[total] = i;
            if (init) init[total] = p.init;
        }
    } while (*s);
    *count = total;
    return NULL;
}

err *depth_from_ranges(int n, const char *ranges, depth_plan **out) {
    int s = 0;
    const reader r = {"layers", "the base model", n, true};
    err *e = check_base(n);
    if (!e) e = walk_parts(&r, ranges, NULL, NULL, &s);
    if (e) return e;
    depth_plan *p = plan_new(n, s);
    if (!p) return no_memory(s);
    e = walk_parts(&r, ranges, p->donor, p->init, &s);
    plan_finish(p);
    *out = p;
    return e;
}

int depth_run_end(const depth_plan *p, int i) {
    int end = i + 1;
    while (end < p->layers && p->donor[end] == p->donor[end - 1] + 1 && p->init[end] == p->init[i]) end++;
    return end;
}

const char *layer_init_mark(layer_init k) { return k == LAYER_ZERO ? "z" : k == LAYER_COPY ? "c" : ""; }

char *depth_text(const depth_plan *p) {
    size_t room = (size_t)p->layers * 14 + 1, used = 0;
    char *text = calloc(1, room);
    for (int i = 0, end; text && i < p->layers; i = end) {
        end = depth_run_end(p, i);
        used += (size_t)snprintf(text + used, room - used, "%s%d", i ? "," : "", p->donor[i]);
        if (end > i + 1) used += (size_t)snprintf(text + used, room - used, "-%d", p->donor[end - 1]);
        used += (size_t)snprintf(text + used, room - used, "%s", layer_init_mark(p->init[i]));
    }
    return text;
}

// ---- inserted layers

// How many new layers come behind each layer of p.
static err *count_inserts(const depth_plan *p, const depth_ask *a, int *inserts, int *total) {
    err *e = NULL;
    int *at = NULL;
    const reader r = {"insert after", "the plan", p->layers, false};
    if (!a->after) {
        *total = (int)(p->layers / a->every);
        for (int i = 0; i < p->layers; i++) inserts[i] = (i + 1) % a->every == 0;
        return *total
                   ? NULL
                   : err_new(ERR_CONFIG, "insert: every %lld of %d layers is none, expected at most every %d",
                             (long long)a->every, p->layers, p->layers);
    }
    TRY(walk_parts(&r, a->after, NULL, NULL, total));
    if (!(at = calloc((size_t)*total, sizeof *at))) return no_memory(*total);
    TRY(walk_parts(&r, a->after, at, NULL, total));
    for (int i = 0; i < *total; i++) inserts[at[i]]++;
done:
    free(at);
    return e;
}

static err *insert_layers(const depth_ask *a, depth_plan **plan) {
    err *e = NULL;
    depth_plan *p = *plan, *q = NULL;
    int added = 0, *inserts = calloc((size_t)p->layers, sizeof *inserts);
    if (!inserts) return no_memory(p->layers);
    TRY(count_inserts(p, a, inserts, &added));
    if (added > MOST_LAYERS - p->layers)
        FAIL(ERR_CONFIG, "insert: more than %d layers in all, expected fewer", MOST_LAYERS);
    if (!(q = plan_new(p->base_layers, p->layers + added))) FAIL(ERR_SYSTEM, "no memory for a depth plan");
    for (int i = 0, k = 0; i < p->layers; i++)
        for (int copy = 0; copy <= inserts[i]; copy++, k++) {
            q->donor[k] = p->donor[i];
            q->init[k] = !copy                                     ? p->init[i]
                         : a->init && strcmp(a->init, "copy") == 0 ? LAYER_COPY
                                                                   : LAYER_ZERO;
        }
    plan_finish(q);
    depth_free(p);
    *plan = q;
done:
    free(inserts);
    return e;
}

// ---- what a user asked for

bool depth_asked(const depth_ask *a) { return a->m >= 0 || a->layers || a->every > 0 || a->after; }

const char *depth_conflict(const depth_ask *a) {
    bool inserts = a->every > 0 || a->after;
    if (a->m >= 0 && a->layers) return "m and layers are both given, expected one of them";
    if (a->every > 0 && a->after) return "insert every and after are both given, expected one of them";
    if (a->init && !inserts) return "insert init is given without every or after, expected one of them";
    if (a->init && strcmp(a->init, "zero_out") != 0 && strcmp(a->init, "copy") != 0)
        return "insert init is neither zero_out nor copy, expected one of them";
    return NULL;
}

err *depth_make(int n, const depth_ask *a, depth_plan **out) {
    err *e = NULL;
    depth_plan *p = NULL;
    const char *conflict = depth_conflict(a);
    if (conflict) FAIL(ERR_CONFIG, "depth: %s", conflict);
    if (a->layers)
        TRY(depth_from_ranges(n, a->layers, &p));
    else if (a->m >= 0)
        TRY(depth_from_m(n, a->m < MOST_LAYERS ? (int)a->m : MOST_LAYERS, &p));
    else
        TRY(depth_identity(n, &p));
    if (a->every > 0 || a->after) TRY(insert_layers(a, &p));
    *out = p;
    p = NULL;
done:
    depth_free(p);
    return e;
}
