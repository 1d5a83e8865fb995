#include "part.h"

#include <stdlib.h>
#include <string.h>

// About the size of a chunk of logits, and rows at most: statistics of a chunk travel between tensor ranks.
enum { LOGITS_BYTES = 32 << 20, CHUNK_ROWS = 8192 };

int part_slots(const mesh *m, int64_t micro) {
    int most = m->pp - m->p;
    return micro < most ? (int)micro : most;
}

// ---- weights

static bool holds(const part *p, const tensor_row *r, bool *tied) {
    *tied = r->role == R_EMBED && p->spec->tied && p->last && !p->first;
    return *tied || r->stage == p->m.p;
}

static err *list_weights(part *p) {
    bool tied;
    p->weight = calloc((size_t)p->table->count, sizeof *p->weight);
    if (!p->weight) return err_new(ERR_SYSTEM, "out of memory for the list of tensors");
    for (int i = 0; i < p->table->count; i++) {
        const tensor_row *r = &p->table->row[i];
        if (!holds(p, r, &tied)) continue;
        slice s = tensor_slice(r, p->m.tp, p->m.t);
        p->weight[p->weights++] = (weight){
            .row = r, .s = s, .n = s.rows * s.cols, .own_n = s.rows * s.cols, .tied = tied, .lr_scale = 1};
    }
    return NULL;
}

static weight *find(part *p, role role, int layer) {
    for (int i = 0; i < p->weights; i++)
        if (p->weight[i].row->role == role && p->weight[i].row->layer == layer) return &p->weight[i];
    return NULL;
}

static void *offset(void *base, int64_t n, size_t size) {
    return base ? (char *)base + (size_t)n * size : NULL;
}

typedef struct block { // consecutive tensors of one linear layer, one matrix in memory
    void *w;
    float *grad;
    int64_t n;
} block;

// Places the tensors of `roles` that exist one behind the other without gaps, so that one product does them
// all.
static block place(part *p, const role *roles, int n_roles, int layer) {
    weight *w[4] = {0};
    int64_t n = 0;
    bool train = p->shape.use == PART_TRAIN, copy = p->shape.dt != DT_F32;
    for (int i = 0; i < n_roles; i++)
        if ((w[i] = find(p, roles[i], layer))) n += w[i]->n;
    if (!n) return (block){0};
    size_t size = dtype_size(p->shape.dt), bytes = (size_t)n * 4;
    arena *a = &p->mem;
    void *data = arena_take(a, MEM_PARAM, (size_t)n * size);
    float *grad = train ? arena_take(a, MEM_GRAD, bytes) : NULL;
    float *m = train ? arena_take(a, MEM_OPTIM, bytes) : NULL;
    float *v = train ? arena_take(a, MEM_OPTIM, bytes) : NULL;
    float *master = train && copy ? arena_take(a, MEM_OPTIM, bytes) : NULL;
    int64_t at = 0;
    for (int i = 0; i < n_roles; i++) {
        if (!w[i]) continue;
        w[i]->w = offset(data, at, size);
        w[i]->grad = offset(grad, at, 4);
        w[i]->m = offset(m, at, 4);
        w[i]->v = offset(v, at, 4);
        w[i]->master = copy ? offset(master, at, 4) : w[i]->w;
        at += w[i]->n;
    }
    return (block){data, grad, n};
}

static norm place_norm(part *p, role r, int layer) {
    block b = place(p, &r, 1, layer);
    return (norm){b.w, b.grad};
}

static linear place_linear(part *p, int64_t in, const role *w, const role *bias, int n, int layer) {
    block weights = place(p, w, n, layer), biases = place(p, bias, n, layer);
    return (linear){in, weights.n / in, weights.w, biases.w, weights.grad, biases.grad};
}

static void place_layer(part *p, layer *l) {
    static const role qkv[] = {R_Q, R_K, R_V}, qkvb[] = {R_QB, R_KB, R_VB}, o[] = {R_O}, ob[] = {R_OB};
    static const role gu[] = {R_GATE, R_UP}, gub[] = {R_GATEB, R_UPB}, down[] = {R_DOWN}, downb[] = {R_DOWNB};
    int i = l->index;
    l->n1 = place_norm(p, R_NORM1, i);
    l->qkv = place_linear(p, p->spec->hidden, qkv, qkvb, 3, i);
    l->o = place_linear(p, p->heads * p->spec->head_dim, o, ob, 1, i);
    l->n2 = place_norm(p, R_NORM2, i);
    l->gate_up = place_linear(p, p->spec->hidden, gu, gub, 2, i);
    l->down = place_linear(p, p->ffn, down, downb, 1, i);
}

static void place_ends(part *p) {
    static const role embed[] = {R_EMBED}, head[] = {R_HEAD};
    block b = {0};
    if (p->first || p->spec->tied) b = place(p, embed, 1, -1);
    if (p->first) p->embed = b.w, p->d_embed = b.grad;
    if (!p->last) return;
    p->fnorm = place_norm(p, R_FNORM, -1);
    if (!p->spec->tied) b = place(p, head, 1, -1);
    p->head = (linear){p->spec->hidden, p->vocab, b.w, NULL, b.grad, NULL};
}

static void place_weights(part *p) {
    for (int i = 0; i < p->layers; i++) place_layer(p, &p->layer[i]);
    place_ends(p);
}

// ---- activations and scratch

static void *act(part *p, int64_t columns) {
    return arena_take(&p->mem, MEM_ACT, (size_t)(p->tokens * columns) * dtype_size(p->shape.dt));
}
static float *act_f32(part *p, int64_t n) { return arena_take(&p->mem, MEM_ACT, (size_t)n * 4); }
static void *work(part *p, int64_t columns) {
    return arena_take(&p->mem, MEM_WORK, (size_t)(p->tokens * columns) * dtype_size(p->shape.dt));
}
static void *work_bytes(part *p, int64_t n, size_t size) {
    return arena_take(&p->mem, MEM_WORK, (size_t)n * size);
}

// Columns of the buffers of a layer, and how much a layer has to recompute before it can do without keeping
// one.
typedef struct act_columns {
    int64_t h, q, qkv, f;
} act_columns;

static act_columns columns_of(const part *p) {
    int64_t d = p->spec->head_dim;
    return (act_columns){p->spec->hidden, p->heads * d, (p->heads + 2 * p->kv_heads) * d, p->ffn};
}

// Takes what a layer keeps from the arena, and the rest from `shared`.
static layer_acts place_acts(part *p, recompute_kind kind, const layer_acts *shared) {
    act_columns c = columns_of(p);
    layer_acts a = shared ? *shared : (layer_acts){0};
    bool full = kind == RECOMPUTE_FULL, none = kind == RECOMPUTE_NONE;
    a.x = act(p, c.h);
    if (!full) {
        a.qkv = act(p, c.qkv);
        a.x2 = act(p, c.h);
        a.gu = act(p, 2 * c.f);
    }
    if (none) {
        a.n1 = act(p, c.h);
        a.att = act(p, c.q);
        a.n2 = act(p, c.h);
        a.act = act(p, c.f);
        a.rstd1 = act_f32(p, p->tokens);
        a.rstd2 = act_f32(p, p->tokens);
        a.lse = act_f32(p, p->tokens * p->heads);
    }
    return a;
}

// What recomputed layers share: everything but x for full, less for selective.
static void place_redo(part *p) {
    act_columns c = columns_of(p);
    bool any = false, full = false;
    for (int i = 0; i < p->layers; i++) {
        any |= p->layer[i].recompute != RECOMPUTE_NONE;
        full |= p->layer[i].recompute == RECOMPUTE_FULL;
    }
    if (full) {
        p->redo.qkv = work(p, c.qkv);
        p->redo.x2 = work(p, c.h);
        p->redo.gu = work(p, 2 * c.f);
    }
    if (!any) return;
    p->redo.n1 = work(p, c.h);
    p->redo.att = work(p, c.q);
    p->redo.n2 = work(p, c.h);
    p->redo.act = work(p, c.f);
    p->redo.rstd1 = work_bytes(p, p->tokens, 4);
    p->redo.rstd2 = work_bytes(p, p->tokens, 4);
    p->redo.lse = work_bytes(p, p->tokens * p->heads, 4);
}

static void place_slot(part *p, slot *s) {
    for (int i = 0; i < p->layers; i++) {
        bool own = i == 0 || p->shape.use == PART_TRAIN;
        s->acts[i] = own ? place_acts(p, p->layer[i].recompute, &p->redo) : s->acts[0];
        if (!own && p->shape.use == PART_CACHE) s->acts[i].qkv = act(p, columns_of(p).qkv);
    }
    s->out = act(p, p->spec->hidden);
    if (!p->last) return;
    s->final = act(p, p->spec->hidden);
    s->rstd = act_f32(p, p->tokens);
}

static void place_backward(part *p) {
    scratch *w = &p->work;
    int64_t h = p->spec->hidden, d = p->spec->head_dim;
    w->grad[0] = work(p, h);
    w->grad[1] = work(p, h);
    w->dn = work(p, h);
    w->dqkv = work(p, (p->heads + 2 * p->kv_heads) * d);
    w->datt = work(p, p->heads * d);
    w->dact = work(p, p->ffn);
    w->dgu = work(p, 2 * p->ffn);
    w->delta_att = work_bytes(p, p->tokens * p->heads, 4);
    w->norm_partial = work_bytes(p, ops_norm_partial(p->tokens, h), 4);
}

static void place_head_scratch(part *p) {
    scratch *w = &p->work;
    w->logits = work_bytes(p, p->chunk * p->vocab, 4);
    w->dlogits = w->logits;
    if (p->shape.use == PART_TRAIN && p->shape.dt != DT_F32)
        w->dlogits = work_bytes(p, p->chunk * p->vocab, dtype_size(p->shape.dt));
    w->stats = work_bytes(p, p->chunk * 3, 4);
    w->all_stats = work_bytes(p, p->chunk * 3 * p->m.tp, 4);
    w->lse = work_bytes(p, p->chunk, 4);
    w->loss = work_bytes(p, p->tokens, 4);
}

static void place_scratch(part *p) {
    int64_t steps = p->tokens * p->shape.micro;
    p->work.delta = work(p, p->spec->hidden);
    if (p->shape.use == PART_TRAIN) place_backward(p);
    if (p->last) place_head_scratch(p);
    p->work.sums = work_bytes(p, p->weights + p->shape.micro + 1, sizeof(double));
    p->cos = work_bytes(p, p->shape.rows * p->spec->head_dim / 2, 4);
    p->sin = work_bytes(p, p->shape.rows * p->spec->head_dim / 2, 4);
    p->positions = work_bytes(p, p->tokens, 4);
    p->inputs = work_bytes(p, steps, 4);
    p->targets = work_bytes(p, steps, 4);
}

static void place_all(part *p) {
    place_weights(p);
    place_redo(p);
    for (int i = 0; i < p->shape.slots; i++) place_slot(p, &p->slot[i]);
    place_scratch(p);
}

// ---- building

static err *upload_tables(part *p) {
    err *e = NULL;
    int64_t n = p->shape.rows * p->spec->head_dim / 2;
    float *cos = malloc((size_t)n * 4), *sin = malloc((size_t)n * 4);
    int32_t *pos = malloc((size_t)p->tokens * 4);
    const ops *k = p->dev->ops;
    if (!cos || !sin || !pos) FAIL(ERR_SYSTEM, "out of memory for position tables");
    spec_rope_tables(p->spec, p->shape.rows, cos, sin);
    for (int64_t i = 0; i < p->tokens; i++) pos[i] = (int32_t)(i % p->shape.rows);
    k->upload(p->dev, p->cos, cos, (size_t)n * 4);
    k->upload(p->dev, p->sin, sin, (size_t)n * 4);
    k->upload(p->dev, p->positions, pos, (size_t)p->tokens * 4);
    TRY(k->sync(p->dev));
done:
    free(cos);
    free(sin);
    free(pos);
    return e;
}

static int64_t role_rows(const part *p, role r, bool *found) {
    for (int i = 0; i < p->table->count; i++)
        if (p->table->row[i].role == r) {
            slice s = tensor_slice(&p->table->row[i], p->m.tp, p->m.t);
            *found = true;
            return s.rows;
        }
    *found = false;
    return 0;
}

static void local_sizes(part *p) {
    bool found;
    p->heads = p->spec->heads / p->m.tp;
    p->kv_heads = role_rows(p, R_K, &found) / p->spec->head_dim;
    p->ffn = role_rows(p, R_GATE, &found);
    p->vocab = role_rows(p, R_EMBED, &found);
    p->tokens = p->shape.batch * p->shape.rows;
    for (int i = 0; i < p->table->count; i++)
        if (p->table->row[i].role == R_EMBED)
            p->vocab_first = tensor_slice(&p->table->row[i], p->m.tp, p->m.t).row0;
    int64_t chunk = p->vocab ? LOGITS_BYTES / 4 / p->vocab : 1;
    p->chunk = chunk < 16 ? 16 : chunk > CHUNK_ROWS ? CHUNK_ROWS : chunk;
    if (p->chunk > p->tokens) p->chunk = p->tokens;
}

static recompute_kind recompute_of(const part_shape *s, int index) {
    int every = s->recompute_every > 1 ? s->recompute_every : 1;
    return s->use == PART_TRAIN && index % every == 0 ? s->recompute : RECOMPUTE_NONE;
}

static err *allocate_lists(part *p) {
    const layout *l = p->stages;
    int first = l->first[p->m.p];
    p->layers = l->first[p->m.p + 1] - first;
    p->layer = calloc((size_t)p->layers, sizeof *p->layer);
    p->slot = calloc((size_t)p->shape.slots, sizeof *p->slot);
    if (!p->layer || !p->slot) return err_new(ERR_SYSTEM, "out of memory for the list of layers");
    for (int i = 0; i < p->layers; i++)
        p->layer[i] = (layer){.index = first + i,
                              .window = p->spec->window[first + i],
                              .recompute = recompute_of(&p->shape, first + i)};
    for (int i = 0; i < p->shape.slots; i++)
        if (!(p->slot[i].acts = calloc((size_t)p->layers, sizeof(layer_acts))))
            return err_new(ERR_SYSTEM, "out of memory for the list of layers");
    return list_weights(p);
}

err *part_make(const model_spec *spec, const depth_plan *plan, const layout *stages, const table *t,
               const mesh *m, const part_shape *shape, device *dev, part **out) {
    err *e = NULL;
    arena counted;
    *out = NULL;
    part *p = calloc(1, sizeof *p);
    if (!p) return err_new(ERR_SYSTEM, "out of memory for the model");
    *p = (part){.spec = spec, .plan = plan, .stages = stages, .table = t, .m = *m, .shape = *shape};
    p->first = m->p == 0;
    p->last = m->p == m->pp - 1;
    TRY(table_check_tp(spec, m->tp));
    local_sizes(p);
    TRY(allocate_lists(p));
    arena_count(&p->mem);
    place_all(p);
    if (dev) {
        counted = p->mem;
        p->dev = dev;
        TRY(arena_open(&p->mem, dev, &counted));
        place_all(p);
        if (!dev->ops->imaginary) TRY(upload_tables(p));
    }
    *out = p;
    return NULL;
done:
    part_free(p);
    return e;
}

void part_free(part *p) {
    if (!p) return;
    if (p->dev) arena_close(&p->mem);
    for (int i = 0; p->slot && i < p->shape.slots; i++) free(p->slot[i].acts);
    free(p->slot);
    free(p->layer);
    free(p->weight);
    free(p);
}
