#include "machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "scalar.h"
#include "yaml_tree.h"

typedef struct figure {
    const char *key;
    size_t offset;
    const char *legal;
} figure;

static const figure figures[] = {
    {"memory", offsetof(machine, memory), "(0, inf)"},
    {"fp32", offsetof(machine, peak[DT_F32]), "(0, inf)"},
    {"bf16", offsetof(machine, peak[DT_BF16]), "(0, inf)"},
    {"product", offsetof(machine, product), "(0, 1]"},
    {"attention", offsetof(machine, attention), "(0, 1]"},
    {"bandwidth", offsetof(machine, bandwidth), "(0, inf)"},
    {"stream", offsetof(machine, stream), "(0, 1]"},
    {"launch", offsetof(machine, launch), "[0, 1]"},
    {"node", offsetof(machine, node), "[1, 100000]"},
    {"link", offsetof(machine, link), "(0, inf)"},
    {"link_latency", offsetof(machine, link_latency), "[0, 1]"},
    {"network", offsetof(machine, network), "(0, inf)"},
    {"network_latency", offsetof(machine, network_latency), "[0, 1]"},
};
enum { FIGURES = sizeof figures / sizeof *figures };

// ---- reading

static err *read_figure(const node *section, const figure *f, machine *out) {
    const node *n = node_find(section, f->key);
    double *to = (double *)(void *)((char *)out + f->offset);
    range legal = range_read(f->legal);
    char words[80], found[128];
    range_words(words, &legal);
    if (!n)
        return place_error(&section->at, "%s: found no %s, expected a number %s", out->name, f->key, words);
    bool number = n->kind == NODE_SCALAR && !n->quoted && parse_real(n->text, to) == NUMBER_OK;
    if (number && range_holds(&legal, *to)) return NULL;
    node_describe(found, n);
    return place_error(&n->at, "%s.%s: found %s, expected a number %s", out->name, f->key, found, words);
}

static err *unknown_figure(const node *section, const char *name) {
    const char *known[FIGURES];
    char shown[SHOWN_BYTES];
    for (int i = 0; i < FIGURES; i++) known[i] = figures[i].key;
    for (const node *n = section->first; n; n = n->next) {
        bool there = false;
        for (int i = 0; i < FIGURES; i++) there |= strcmp(n->key, known[i]) == 0;
        if (there) continue;
        const char *near = suggest(n->key, known, FIGURES);
        show_text(shown, n->key);
        return place_error(&n->key_at, "%s: found unknown figure %s%s%s%s", name, shown,
                           near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
    }
    return NULL;
}

static err *no_machine(const node *root, const char *file, const char *name) {
    char list[256] = "", shown[SHOWN_BYTES];
    size_t at = 0;
    for (const node *n = root->first; n && at < sizeof list; n = n->next)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", n->key);
    show_text(shown, name);
    return err_new(ERR_CONFIG, "%s: found no machine %s, expected one of %s", file, shown, list);
}

static err *read_machine(const node *root, const char *file, const char *name, machine *out) {
    err *e = NULL;
    if (!root || root->kind != NODE_MAP)
        FAIL(ERR_CONFIG, "%s: found no map, expected a section for every machine", file);
    const node *section = node_find(root, name);
    if (!section || section->kind != NODE_MAP) return no_machine(root, file, name);
    *out = (machine){0};
    snprintf(out->name, sizeof out->name, "%s", name);
    TRY(unknown_figure(section, name));
    for (int i = 0; i < FIGURES; i++) TRY(read_figure(section, &figures[i], out));
done:
    return e;
}

// Beside the program: in a checkout (build/solar) or where it was installed (bin/solar).
static char *default_file(void) {
    static const char *const places[] = {"../slurm/machines.yaml", "../share/solar/slurm/machines.yaml"};
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return NULL;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *path = path_join(exe, places[i]);
        if (path && path_exists(path)) return path;
        free(path);
    }
    return NULL;
}

err *machine_load(const char *file, const char *name, machine *out) {
    err *e = NULL;
    yaml_tree *tree = NULL;
    node *root = NULL;
    char *text = NULL, *path = file ? strdup(file) : default_file();
    size_t bytes = 0;
    if (!path) FAIL(ERR_CONFIG, "slurm/machines.yaml is not beside this program: name a file with --machine");
    if ((e = read_file(path, 1 << 20, &text, &bytes))) {
        err *mine = err_new(ERR_CONFIG, "%s: expected a file of machines: %s", path, err_text(e));
        err_free(e);
        e = mine;
        goto done;
    }
    TRY(yaml_tree_new(&tree));
    TRY(yaml_tree_read(tree, text, bytes, path, true, &root));
    TRY(read_machine(root, path, name, out));
done:
    yaml_tree_free(tree);
    free(text);
    free(path);
    return e;
}

// ---- times

double machine_seconds(const void *of, const op_cost *c) {
    const machine *m = of;
    double share = c->kind == OP_ATTENTION ? m->attention : m->product;
    double compute = c->flop / (m->peak[c->dt] * share), memory = c->bytes / (m->bandwidth * m->stream);
    return fmax(compute, memory) + m->launch;
}

static bool same_host(const machine *m, int a, int b) {
    int node = (int)m->node;
    return a / node == b / node;
}

double machine_message(const machine *m, int from, int to, double bytes, double *next) {
    bool near = same_host(m, from, to);
    *next = bytes / (near ? m->link : m->network);
    return *next + (near ? m->link_latency : m->network_latency);
}

typedef struct spread { // of the others in a group
    int near, far;
} spread;

static void place_peer(const machine *m, const mesh *at, int d, int p, int t, spread *s) {
    int me = mesh_rank(at, at->d, at->p, at->t), peer = mesh_rank(at, d, p, t);
    if (peer == me) return;
    if (same_host(m, me, peer))
        s->near++;
    else
        s->far++;
}

static spread group_spread(const machine *m, const mesh *at, int64_t kv_heads, comm_kind kind) {
    spread s = {0};
    int copies = at->tp > kv_heads ? at->tp / (int)kv_heads : 1, first = at->t / copies * copies;
    if (kind <= COMM_TENSOR_SCATTER)
        for (int t = 0; t < at->tp; t++) place_peer(m, at, at->d, at->p, t, &s);
    else if (kind <= COMM_DATA_SCATTER)
        for (int d = 0; d < at->dp; d++) place_peer(m, at, d, at->p, at->t, &s);
    else if (kind <= COMM_KV_SCATTER)
        for (int t = first; t < first + copies; t++) place_peer(m, at, at->d, at->p, t, &s);
    else if (kind <= COMM_TIED_SCATTER)
        place_peer(m, at, at->d, at->p ? 0 : at->pp - 1, at->t, &s);
    else
        s.far = at->world - 1;
    return s;
}

static bool is_sum(comm_kind k) {
    return k == COMM_TENSOR_SUM || k == COMM_DATA_SUM || k == COMM_KV_SUM || k == COMM_TIED_SUM;
}

// Bytes go to all others alike; what leaves the host and what stays on it travel at the same time. A sum is a
// scatter and a gather.
double machine_together(const machine *m, const mesh *at, int64_t kv_heads, comm_kind kind, double bytes) {
    spread s = group_spread(m, at, kv_heads, kind);
    int others = s.near + s.far;
    if (!others) return 0;
    double near = bytes * s.near / others / m->link, far = bytes * s.far / others / m->network;
    double latency = s.far ? m->network_latency : m->link_latency;
    return fmax(near, far) + latency * (is_sum(kind) ? 2 : 1);
}
