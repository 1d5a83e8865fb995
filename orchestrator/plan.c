#include "plan.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/comm.h"
#include "../worker/reduce.h"
#include "../worker/save_plan.h"
#include "log.h"
#include "lr.h"
#include "measures.h"

layout_shape plan_layout(const config *c) {
    return (layout_shape){.pp = (int)c->mesh.pipeline,
                          .interleave = (int)c->mesh.interleave,
                          .counts = c->mesh.layers_per_stage,
                          .seam_inside = c->mesh.seam_inside};
}

bool plan_linked(const config *c, const char *machine) {
    bool automatic = strcmp(c->mesh.transport, "auto") == 0, cpu = strcmp(c->train.device, "cpu") == 0;
    return automatic ? !cpu && strcmp(machine, "cpu") != 0 : strcmp(c->mesh.transport, "nccl") == 0;
}

err *plan_shape(const config *c, const mesh *m, part_shape *out) {
    int64_t per = c->train.micro_batch * m->dp;
    if (c->train.global_batch % per)
        return err_new(
            ERR_CONFIG,
            "train.global_batch %lld cannot be dealt to %d data-parallel rank(s) in micro-batches of %lld: "
            "it must be a multiple of %lld",
            (long long)c->train.global_batch, m->dp, (long long)c->train.micro_batch, (long long)per);
    int64_t micro = c->train.global_batch / per;
    *out = (part_shape){.dt = c->train.precision,
                        .use = PART_TRAIN,
                        .batch = c->train.micro_batch,
                        .rows = c->data.seq_len,
                        .sequence = c->mesh.sequence_parallel,
                        .moments = c->optimizer.moments,
                        .offload = c->optimizer.offload,
                        .shard = c->optimizer.shard,
                        .grads = c->train.grad_accum,
                        .reduce = c->train.grad_reduce,
                        .recompute = c->train.recompute,
                        .recompute_every = (int)c->train.recompute_every,
                        .micro = (int)micro,
                        .mask_documents = c->data.mask_documents};
    return NULL;
}

static const char *plural(int64_t n) { return n == 1 ? "" : "s"; }

static void print_model(FILE *out, const blueprint *b) {
    const model_spec *s = b->spec;
    char *plan = depth_text(b->plan);
    fprintf(out, "model     %s, hidden %lld, %lld/%lld heads of %lld, ffn %lld, vocabulary %lld%s\n",
            s->family, (long long)s->hidden, (long long)s->heads, (long long)s->kv_heads,
            (long long)s->head_dim, (long long)s->ffn, (long long)s->vocab, s->tied ? " (tied head)" : "");
    fprintf(out, "depth     %d -> %d layers (%s), %d seam%s, %d new; parameters %lld -> %lld\n",
            b->plan->base_layers, b->plan->layers, plan, b->plan->seams, plural(b->plan->seams),
            b->plan->fresh, (long long)spec_parameters(b->base), (long long)spec_parameters(s));
    free(plan);
}

static bool is_seam(const depth_plan *p, int layer) {
    for (int i = 0; i < p->seams; i++)
        if (p->seam[i] == layer) return true;
    return false;
}

// One line for every run of consecutive donors within a stage; new layers in lines of their own.
static void print_layers(FILE *out, const blueprint *b) {
    static const char *const how[] = {"", ", new: a copy", ", new: zero output"};
    const depth_plan *p = b->plan;
    for (int stage = 0; stage < b->stages->stages; stage++) {
        int end = b->stages->first[stage + 1];
        char where[48];
        snprintf(where, sizeof where, "stage %d", stage % b->stages->ranks);
        if (b->stages->stages > b->stages->ranks)
            snprintf(where, sizeof where, "stage %d, virtual %d", stage % b->stages->ranks, stage);
        for (int i = b->stages->first[stage], last; i < end; i = last) {
            last = depth_run_end(p, i) < end ? depth_run_end(p, i) : end;
            bool inside = is_seam(p, i) && i != b->stages->first[stage];
            if (is_seam(p, i))
                fprintf(out, "          -- seam: donor %d, then %d%s --\n", p->donor[i - 1], p->donor[i],
                        inside ? ", inside a stage" : "");
            fprintf(out, "layers    %s: %3d-%-3d from base %d-%d%s\n", where, i, last - 1, p->donor[i],
                    p->donor[last - 1], how[p->init[i]]);
        }
    }
}

typedef struct holding {
    int64_t parameters;
    size_t bytes[MEM_CLASSES];
} holding;

static err *count_rank(const config *c, const blueprint *b, const mesh *m, holding *out) {
    err *e = NULL;
    part_shape shape;
    part *p = NULL;
    TRY(plan_shape(c, m, &shape));
    TRY(part_make(b->spec, b->plan, b->stages, b->table, m, &shape, NULL, &p));
    memset(out, 0, sizeof *out);
    memcpy(out->bytes, p->mem.used, sizeof out->bytes);
    for (int i = 0; i < p->weights; i++) out->parameters += p->weight[i].n;
done:
    part_free(p);
    return e;
}

static void print_bytes(FILE *out, int stage, int t, const holding *h) {
    char text[32];
    double total = 0;
    fprintf(out, "memory    stage %d tensor %d: of %lld parameters:", stage, t, (long long)h->parameters);
    for (int k = 0; k < MEM_HOST; k++) {
        total += (double)h->bytes[k];
        format_bytes(text, (double)h->bytes[k]);
        fprintf(out, " %s %s,", mem_class_name((mem_class)k), text);
    }
    format_bytes(text, total);
    fprintf(out, " total %s\n", text);
    if (!h->bytes[MEM_HOST]) return;
    format_bytes(text, (double)h->bytes[MEM_HOST]);
    fprintf(out, "          and %s of host memory for moments\n", text);
}

// Host memory that a rank needs to save: its share of the checkpoint.
static err *count_saving(const config *c, const blueprint *b, const mesh *m, size_t *bytes) {
    err *e = NULL;
    part_shape shape;
    part *p = NULL;
    save_plan save = {0};
    TRY(plan_shape(c, m, &shape));
    TRY(part_make(b->spec, b->plan, b->stages, b->table, m, &shape, NULL, &p));
    TRY(save_plan_make(p, c->checkpoint.file_mib << 20, &save));
    *bytes = save.bytes;
done:
    save_plan_free(&save);
    part_free(p);
    return e;
}

// The most that any rank needs; of the data ranks the first, to which the largest tensors are dealt.
static err *print_saving(FILE *out, const config *c, const blueprint *b, const mesh *first) {
    err *e = NULL;
    size_t most = 0, bytes;
    char text[32];
    for (int i = 0; i < first->pp * first->tp; i++) {
        mesh m = *first;
        m.d = 0;
        m.p = i / first->tp;
        m.t = i % first->tp;
        TRY(count_saving(c, b, &m, &bytes));
        if (bytes > most) most = bytes;
    }
    format_bytes(text, (double)most);
    fprintf(out,
            "          and up to %s of host memory per rank for the copy that is saved beside training\n",
            text);
done:
    return e;
}

// Tensor ranks of a stage that need the same are told once.
static err *print_memory(FILE *out, const config *c, const blueprint *b, const mesh *first) {
    err *e = NULL;
    char text[32];
    for (int p = 0; p < first->pp; p++) {
        holding last = {0};
        for (int t = 0; t < first->tp; t++) {
            holding now;
            mesh m = *first;
            m.p = p;
            m.t = t;
            TRY(count_rank(c, b, &m, &now));
            if (memcmp(&last, &now, sizeof now) != 0) print_bytes(out, p, t, &now);
            last = now;
        }
    }
    format_bytes(text, (double)comm_scratch_bytes());
    fprintf(out, "          and %s of host memory per rank for communication\n", text);
    if (plan_linked(c, plan_machine(c)) && first->world > 1) {
        format_bytes(text, (double)comm_link_scratch_bytes() + (double)reduce_scratch_bytes(first, true));
        fprintf(out, "          and %s of a GPU's memory for links (mesh.transport), without NCCL's own\n",
                text);
    }
    TRY(print_saving(out, c, b, first));
done:
    return e;
}

static void print_step(FILE *out, const config *c, const blueprint *b, const mesh *m) {
    int64_t micro = c->train.global_batch / c->train.micro_batch / m->dp, L = c->data.seq_len;
    double flop = token_flop_of(b->spec, L).all_pairs;
    fprintf(out,
            "step      %lld samples x %lld tokens = %lld tokens; %lld micro-batch%s of %lld a data rank; "
            "1F1B idle "
            "share %.1f %%\n",
            (long long)c->train.global_batch, (long long)L, (long long)(c->train.global_batch * L),
            (long long)micro, micro == 1 ? "" : "es", (long long)c->train.micro_batch,
            100.0 * (m->pp - 1) / (double)(micro * c->mesh.interleave + m->pp - 1));
    fprintf(out, "run       %lld steps, %.4g tokens; %.4g FLOP a token (6N + 12 L h s), %.4g in all\n",
            (long long)c->train.steps, (double)c->train.steps * (double)(c->train.global_batch * L), flop,
            flop * (double)c->train.steps * (double)(c->train.global_batch * L));
}

static void print_blend(FILE *out, const config *c) {
    for (int i = 0; i < c->data.n_blend; i++) {
        const blend_config *b = &c->data.blend[i];
        fprintf(out, "blend     from sample %lld, in step %lld:", (long long)b->at,
                (long long)(b->at / c->train.global_batch) + 1);
        for (int k = 0; k < b->n_weights; k++)
            fprintf(out, " %s %g%s", c->data.train[k].name, b->weights[k], k + 1 < b->n_weights ? "," : "\n");
    }
}

// What a message of one pipeline boundary may hold.
static err *check_message(const config *c, const blueprint *b, const mesh *m) {
    double elements = (double)c->train.micro_batch * (double)c->data.seq_len * (double)b->spec->hidden;
    if (m->pp == 1 || elements <= INT_MAX) return NULL;
    return err_new(
        ERR_CONFIG,
        "micro_batch x seq_len x hidden = %.3g numbers would go from stage to stage at a time, at most "
        "%d can: use a smaller train.micro_batch",
        elements, INT_MAX);
}

err *plan_check(const config *c, const blueprint *b, int world) {
    err *e = NULL;
    mesh m;
    part_shape shape;
    TRY(mesh_make(world, 0, (int)c->mesh.pipeline, (int)c->mesh.tensor, c->mesh.order, &m));
    TRY(table_check_tp(b->spec, m.tp));
    TRY(plan_shape(c, &m, &shape));
    TRY(check_message(c, b, &m));
done:
    return e;
}

const char *plan_machine(const config *c) {
    if (c->mesh.machine) return c->mesh.machine;
    return strcmp(c->train.device, "cpu") == 0 ? "cpu" : "h100";
}

err *plan_print(FILE *out, const config *c, const blueprint *b, int world) {
    err *e = NULL;
    mesh m;
    TRY(plan_check(c, b, world));
    TRY(mesh_make(world, 0, (int)c->mesh.pipeline, (int)c->mesh.tensor, c->mesh.order, &m));
    print_model(out, b);
    fprintf(out, "mesh      %d rank%s = data %d x pipeline %d x tensor %d, %s\n", world, plural(world), m.dp,
            m.pp, m.tp, c->train.precision == DT_F32 ? "fp32" : "bf16, updated in fp32");
    print_layers(out, b);
    TRY(print_memory(out, c, b, &m));
    if (c->data.seq_len > b->spec->max_positions)
        fprintf(out, "note      data.seq_len %lld is longer than the %lld positions the model was made for\n",
                (long long)c->data.seq_len, (long long)b->spec->max_positions);
    print_step(out, c, b, &m);
    learning_rate_print(out, c);
    print_blend(out, c);
done:
    return e;
}

err *plan_text(const config *c, const blueprint *b, int world, char **out) {
    size_t bytes;
    *out = NULL;
    FILE *f = open_memstream(out, &bytes);
    if (!f) return err_errno(errno, "out of memory for the plan");
    err *e = plan_print(f, c, b, world);
    fclose(f);
    return e;
}
