// compare RUN_A RUN_B TOLERANCE: compares two run directories: the losses and gradient norms of every step in
// metrics.jsonl, and every tensor of the newest checkpoint, optimizer included. An error is |a-b|/|b| (of a
// tensor: of norms, in fp64). Tolerance 0 wants equal bytes. Prints the largest errors; exit status 1 when
// one is larger.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "fsutil.h"
#include "load.h"
#include "safetensors.h"

typedef struct worst {
    double err;
    char what[160];
} worst;

static void note(worst *w, double err, const char *what) {
    if (err <= w->err) return;
    w->err = isnan(err) ? INFINITY : err;
    snprintf(w->what, sizeof w->what, "%s", what);
}

static int die(const char *what, err *e) {
    fprintf(stderr, "compare: %s: %s\n", what, err_text(e));
    exit(2);
}

// ---- metrics

static json_t *step_line(FILE *f) {
    char line[4096];
    while (fgets(line, sizeof line, f)) {
        json_t *doc = json_loads(line, 0, NULL);
        if (json_object_get(doc, "grad_norm")) return doc;
        json_decref(doc);
    }
    return NULL;
}

static double relative(json_t *a, json_t *b, const char *key) {
    double x = json_number_value(json_object_get(a, key)), y = json_number_value(json_object_get(b, key));
    return fabs(x - y) / fabs(y);
}

static int compare_metrics(const char *run_a, const char *run_b, worst *w) {
    char *pa = path_join(run_a, "metrics.jsonl"), *pb = path_join(run_b, "metrics.jsonl"), what[80];
    FILE *fa = fopen(pa, "r"), *fb = fopen(pb, "r");
    json_t *a = NULL, *b = NULL;
    int steps = 0;
    if (!fa || !fb) die("metrics.jsonl is missing", NULL);
    for (;; steps++) {
        json_decref(a);
        json_decref(b);
        a = step_line(fa);
        b = step_line(fb);
        if (!a || !b) break;
        snprintf(what, sizeof what, "loss of step %d", steps + 1);
        note(w, relative(a, b, "loss"), what);
        snprintf(what, sizeof what, "gradient norm of step %d", steps + 1);
        note(w, relative(a, b, "grad_norm"), what);
    }
    if (a || b || !steps) note(w, INFINITY, "number of steps");
    json_decref(a);
    json_decref(b);
    fclose(fa);
    fclose(fb);
    free(pa);
    free(pb);
    return steps;
}

// ---- tensors

static float *values(const st_set *s, const st_tensor *t, int64_t *n) {
    *n = 1;
    for (int i = 0; i < t->ndim; i++) *n *= t->shape[i];
    float *v = malloc((size_t)*n * 4);
    err *e = st_read_slice(s, t, 0, t->shape[0], 0, t->ndim == 2 ? t->shape[1] : 1, DT_F32, v);
    if (!v || e) die(t->name, e);
    return v;
}

static double tensor_error(const st_set *sa, const st_tensor *a, const st_set *sb, const st_tensor *b,
                           bool exact) {
    int64_t na, nb;
    float *x = values(sa, a, &na), *y = values(sb, b, &nb);
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < na && i < nb; i++) {
        diff += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        norm += (double)y[i] * y[i];
    }
    bool same = na == nb && a->dt == b->dt && memcmp(x, y, (size_t)na * 4) == 0;
    free(x);
    free(y);
    if (na != nb || (exact && !same)) return INFINITY;
    return exact ? 0 : norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

static int compare_sets(const st_set *a, const st_set *b, bool exact, worst *w) {
    if (st_count(a) != st_count(b)) note(w, INFINITY, "number of tensors");
    for (int i = 0; i < st_count(b); i++) {
        const st_tensor *tb = st_at(b, i), *ta = st_find(a, tb->name);
        note(w, ta ? tensor_error(a, ta, b, tb, exact) : INFINITY, tb->name);
    }
    return st_count(b);
}

// ---- optimizer state, which may lie in other pieces on either side

static manifest *open_manifest(const char *run) {
    char *path = path_join(run, "latest");
    manifest *m = NULL;
    err *e = manifest_open(path, &m);
    if (e) die(path, e);
    free(path);
    return m;
}

static bool is_state(const manifest *m, const stored *t) {
    return strncmp(m->file[t->in.file].name, "solar/", 6) == 0;
}

static float *whole(manifest *m, const stored *t) {
    int64_t n = t->shape[0] * t->shape[1];
    want w = {.of = t->of,
              .shape = {t->shape[0], t->shape[1]},
              .rows = t->shape[0],
              .cols = t->shape[1],
              .n = n,
              .dst = calloc((size_t)n + 1, 4)};
    err *e = w.dst ? load_tensor(m, &w, 1) : NULL;
    if (!w.dst || e) die(t->of, e);
    return w.dst;
}

static double state_error(manifest *ma, const stored *a, manifest *mb, const stored *b, bool exact) {
    double diff = 0, norm = 0;
    if (a->shape[0] != b->shape[0] || a->shape[1] != b->shape[1]) return INFINITY;
    float *x = whole(ma, a), *y = whole(mb, b);
    int64_t n = a->shape[0] * a->shape[1];
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        norm += (double)y[i] * y[i];
    }
    bool same = memcmp(x, y, (size_t)n * 4) == 0;
    free(x);
    free(y);
    return exact ? (same ? 0 : INFINITY) : norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

static int count_states(const manifest *m) {
    int n = 0;
    for (int i = 0; i < m->tensors; i++)
        n += is_state(m, &m->tensor[i]) && (i == 0 || strcmp(m->tensor[i].of, m->tensor[i - 1].of) != 0);
    return n;
}

static int compare_states(manifest *a, manifest *b, bool exact, worst *w) {
    int n = count_states(b);
    if (count_states(a) != n || n == 0) note(w, INFINITY, "number of optimizer tensors");
    for (int i = 0; i < b->tensors; i++) {
        const stored *tb = &b->tensor[i], *ta;
        if (!is_state(b, tb) || (i > 0 && strcmp(tb->of, b->tensor[i - 1].of) == 0)) continue;
        note(w, manifest_find(a, tb->of, &ta) ? state_error(a, ta, b, tb, exact) : INFINITY, tb->of);
    }
    return n;
}

static st_set *open_model(const char *run) {
    char *path = path_join(run, "latest");
    st_set *s = NULL;
    err *e = st_open(path, &s);
    if (e) die(path, e);
    free(path);
    return s;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: compare RUN_A RUN_B TOLERANCE\n"), 2;
    double tol = atof(argv[3]);
    worst metrics = {-1, ""}, model = {-1, ""}, optim = {-1, ""};
    int steps = compare_metrics(argv[1], argv[2], &metrics);
    st_set *a = open_model(argv[1]), *b = open_model(argv[2]);
    manifest *oa = open_manifest(argv[1]), *ob = open_manifest(argv[2]);
    int tensors = compare_sets(a, b, tol == 0, &model), states = compare_states(oa, ob, tol == 0, &optim);
    printf("%d steps: %.2e (%s); %d tensors: %.2e (%s); %d optimizer tensors: %.2e (%s)\n", steps,
           metrics.err, metrics.what, tensors, model.err, model.what, states, optim.err, optim.what);
    st_close(a);
    st_close(b);
    manifest_close(oa);
    manifest_close(ob);
    bool good = metrics.err <= tol && model.err <= tol;
    // Moments are sums of small gradients and their squares: their own rounding is larger.
    return good && optim.err <= 10 * tol ? 0 : 1;
}
