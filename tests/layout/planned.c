// planned CONFIG...: runs a training step of every configuration on all ranks of this launch, and the same
// step on paper for every rank, and compares: bytes of every class of memory, bytes asked of the device,
// messages and bytes sent by kind, products and their arithmetic. Everything has to be equal. CONFIG is words
// joined by commas: pp=2 tp=2 batch=2 global=8 kv=2 layers=4 m=1 seq=33 v=2 tied bf16
// selective full every=2 shard sequence reduce16 grad16 moments16 moments8.
// Rank 0 prints a line for each and the result line of tests/run.sh.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

#include "engine.h"
#include "trace.h"
#include "weights.h"

typedef struct setting {
    int pp, tp, batch, global, kv, layers, m, seq, every, v;
    bool tied, bf16, shard, sequence, reduce16, grad16;
    moments_form moments;
    recompute_kind recompute;
} setting;

typedef struct counted { // what the real device was asked
    size_t allocated;
    int64_t products;
    double flop;
} counted;

static counted real; // one device and one thread in this program
static const ops *cpu;

static void need(err *e) {
    if (!e) return;
    fprintf(stderr, "planned: %s\n", err_text(e));
    MPI_Abort(MPI_COMM_WORLD, 2);
}

static err *count_alloc(device *d, size_t bytes, void **out) {
    real.allocated += bytes;
    return cpu->alloc(d, bytes, out);
}

static void count_product(device *d, const struct product *p) {
    real.products++;
    real.flop += 2.0 * (double)p->m * (double)p->n * (double)p->k;
    cpu->product(d, p);
}

static void number(const char *word, const char *name, int *to) {
    size_t n = strlen(name);
    if (strncmp(word, name, n) == 0 && word[n] == '=') *to = atoi(word + n + 1);
}

static setting read_setting(const char *text) {
    setting s = {.pp = 1,
                 .tp = 1,
                 .v = 1,
                 .batch = 1,
                 .global = 8,
                 .kv = 2,
                 .layers = 4,
                 .m = 1,
                 .seq = 33,
                 .every = 1};
    char *copy = strdup(text), *rest = NULL;
    for (char *w = strtok_r(copy, ",", &rest); w; w = strtok_r(NULL, ",", &rest)) {
        const struct {
            const char *name;
            int *to;
        } known[] = {{"pp", &s.pp},       {"tp", &s.tp}, {"batch", &s.batch},   {"global", &s.global},
                     {"kv", &s.kv},       {"m", &s.m},   {"layers", &s.layers}, {"seq", &s.seq},
                     {"every", &s.every}, {"v", &s.v}};
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) number(w, known[i].name, known[i].to);
        s.tied |= strcmp(w, "tied") == 0;
        s.bf16 |= strcmp(w, "bf16") == 0;
        s.shard |= strcmp(w, "shard") == 0;
        s.reduce16 |= strcmp(w, "reduce16") == 0;
        if (strcmp(w, "moments16") == 0) s.moments = MOMENTS_BF16;
        if (strcmp(w, "moments8") == 0) s.moments = MOMENTS_INT8;
        s.grad16 |= strcmp(w, "grad16") == 0;
        s.sequence |= strcmp(w, "sequence") == 0;
        if (strcmp(w, "selective") == 0) s.recompute = RECOMPUTE_SELECTIVE;
        if (strcmp(w, "full") == 0) s.recompute = RECOMPUTE_FULL;
    }
    free(copy);
    return s;
}

static void make_blueprint(const setting *s, blueprint *b) {
    json_t *doc =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:b, s:f}", "architectures",
                  "LlamaForCausalLM", "model_type", "llama", "hidden_size", 48, "intermediate_size", 90,
                  "num_hidden_layers", s->layers, "num_attention_heads", 8, "num_key_value_heads", s->kv,
                  "vocab_size", 261, "max_position_embeddings", 128, "rms_norm_eps", 1e-5, "rope_theta", 1e4,
                  "hidden_act", "silu", "tie_word_embeddings", s->tied, "initializer_range", 0.08);
    need(spec_parse(doc, "planned", &b->base));
    json_decref(doc);
    need(depth_from_m(s->layers, s->m, &b->plan));
    need(spec_deepen(b->base, b->plan, &b->spec));
    need(layout_make(b->plan, &(layout_shape){.pp = s->pp, .interleave = s->v}, &b->stages));
    need(table_make(b->spec, b->plan, b->stages, &b->table));
}

static part_shape shape_of(const setting *s, const mesh *m) {
    int micro = s->global / m->dp / s->batch;
    return (part_shape){.dt = s->bf16 ? DT_BF16 : DT_F32,
                        .use = PART_TRAIN,
                        .batch = s->batch,
                        .rows = s->seq,
                        .shard = s->shard,
                        .moments = s->moments,
                        .grads = s->grad16 ? DT_BF16 : DT_F32,
                        .reduce = s->reduce16 ? DT_BF16 : DT_F32,
                        .sequence = s->sequence,
                        .recompute = s->recompute,
                        .recompute_every = s->every,
                        .micro = micro};
}

// Two real steps; what the second one did, to `out` and `real`.
static void train(const setting *s, const mesh *m, const blueprint *b, const part_shape *shape, trace *out) {
    device *dev;
    part *p;
    comm *c;
    trainer *t;
    step_report report;
    static const step_options o = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 1};
    int32_t *tokens = calloc((size_t)(s->global / m->dp * (s->seq + 1)), sizeof *tokens);
    need(cpu_open(1, &dev));
    cpu = dev->ops;
    ops mine = *cpu;
    mine.alloc = count_alloc;
    mine.product = count_product;
    dev->ops = &mine;
    real = (counted){0};
    need(part_make(b->spec, b->plan, b->stages, b->table, m, shape, dev, &p));
    need(weights_random(p, 1));
    need(comm_open(m, dev, b->spec->kv_heads, b->spec->tied, 60, &c));
    need(trainer_open(p, c, s->global, &t));
    need(train_step(t, 1, 1, &o, tokens, 0, &report));
    memcpy(out->sent, c->sent, sizeof out->sent);
    real.products = 0;
    real.flop = 0;
    need(train_step(t, 2, 2, &o, tokens, 0, &report));
    for (int k = 0; k < COMM_KINDS; k++) {
        out->sent[k].messages = c->sent[k].messages - out->sent[k].messages;
        out->sent[k].bytes = c->sent[k].bytes - out->sent[k].bytes;
    }
    memcpy(out->bytes, p->mem.size, sizeof out->bytes);
    trainer_close(t);
    comm_close(c);
    part_free(p);
    dev->ops->close(dev);
    free(tokens);
}

static int differ(int rank, const char *config, const char *what, double planned, double found) {
    if (planned == found) return 0;
    printf("%s, rank %d: %s: planned %.0f, was %.0f\n", config, rank, what, planned, found);
    return 1;
}

static int compare(const char *config, const trace *plan, const trace *was) {
    int bad = 0, rank = plan->m.rank;
    double bytes = 0;
    for (int c = 0; c < MEM_CLASSES; c++) { // MEM_HOST is empty on the CPU
        bad +=
            differ(rank, config, mem_class_name((mem_class)c), (double)plan->bytes[c], (double)was->bytes[c]);
        bytes += (double)plan->bytes[c];
    }
    for (int k = 0; k < COMM_KINDS; k++) {
        const char *name = comm_kind_name((comm_kind)k);
        bad += differ(rank, config, name, (double)plan->sent[k].messages, (double)was->sent[k].messages);
        bad += differ(rank, config, name, (double)plan->sent[k].bytes, (double)was->sent[k].bytes);
    }
    bad += differ(rank, config, "bytes allocated", (double)plan->allocated, (double)real.allocated);
    bad += differ(rank, config, "bytes of all classes", bytes, (double)real.allocated);
    bad += differ(rank, config, "products", (double)plan->count[OP_PRODUCT], (double)real.products);
    return bad + differ(rank, config, "FLOP", plan->cost[OP_PRODUCT].flop, real.flop);
}

// What there must be for the comparison to mean something: 0 == 0 proves nothing.
static int expect_traffic(const char *config, const setting *s, const mesh *m, const trace *t) {
    int bad = 0;
    comm_kind tensor = s->sequence ? COMM_TENSOR_SCATTER : COMM_TENSOR_SUM;
    bad += (m->tp > 1) != (t->sent[tensor].messages > 0);
    bad += (m->dp > 1) != (t->sent[COMM_DATA_SCATTER].messages > 0);
    bad += (m->dp > 1) != (t->sent[COMM_DATA_GATHER].messages > 0);
    bad += (m->tp > s->kv) != (t->sent[COMM_KV_SUM].messages > 0);
    bad += (m->p + 1 < m->pp || s->v > 1) != (t->sent[COMM_FORWARD].messages > 0);
    bad += (m->p > 0 || s->v > 1) != (t->sent[COMM_BACKWARD].messages > 0);
    if (bad)
        printf("%s, rank %d: messages of %d kind(s) missing, or there where none should be\n", config,
               m->rank, bad);
    return bad;
}

static int check(const char *config) {
    int rank, world;
    mesh m;
    blueprint b = {0};
    trace plan, was = {0};
    setting s = read_setting(config);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    need(mesh_make(world, rank, s.pp, s.tp, MESH_TDP, &m));
    make_blueprint(&s, &b);
    part_shape shape = shape_of(&s, &m);
    trace_input in = {b.spec, b.plan, b.stages, b.table, &m, &shape, s.global, NULL, NULL, false};
    need(trace_step(&in, &plan));
    train(&s, &m, &b, &shape, &was);
    int bad = compare(config, &plan, &was) + expect_traffic(config, &s, &m, &was), all = 0;
    fflush(stdout);
    MPI_Allreduce(&bad, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0) printf("%s %d ranks, %s\n", all ? "FAIL" : "ok  ", world, config);
    trace_free(&plan);
    blueprint_free(&b);
    return all != 0;
}

int main(int argc, char **argv) {
    int failed = 0, rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 1; i < argc; i++) failed += check(argv[i]);
    if (rank == 0) printf("%d passed, %d failed, 0 skipped\n", argc - 1 - failed, failed);
    MPI_Finalize();
    return failed != 0;
}
