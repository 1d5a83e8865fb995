#include "part.h"

#include <stdlib.h>
#include <string.h>

#include "part_weights.h"

// About the size of a chunk of logits, and rows at most: statistics of a chunk travel between tensor ranks.
enum { LOGITS_BYTES = 32 << 20, CHUNK_ROWS = 8192 };
enum { STREAM_ELEMENTS = 4 << 20 };

// ---- activations and scratch

static void *take(part *p, mem_class class, int64_t rows, int64_t columns) {
    return arena_take(&p->mem, class, (size_t)(rows * columns) * dtype_size(p->shape.dt));
}
static void *act(part *p, int64_t columns) { return take(p, MEM_ACT, p->tokens, columns); }
static void *act_rows(part *p) { return take(p, MEM_ACT, p->local, p->spec->hidden); }
static float *act_f32(part *p, int64_t n) { return arena_take(&p->mem, MEM_ACT, (size_t)n * 4); }
static void *work(part *p, int64_t columns) { return take(p, MEM_WORK, p->tokens, columns); }
static void *work_rows(part *p) { return take(p, MEM_WORK, p->local, p->spec->hidden); }
static void *work_bytes(part *p, int64_t n, size_t size) {
    return arena_take(&p->mem, MEM_WORK, (size_t)n * size);
}

// Columns of the buffers of a layer, and how much a layer has to recompute before it can do without keeping
// one.
typedef struct act_columns {
    int64_t q, qkv, f;
} act_columns;

static act_columns columns_of(const part *p) {
    int64_t d = p->spec->head_dim;
    return (act_columns){p->heads * d, (p->heads + 2 * p->kv_heads) * d, p->ffn};
}

// Takes what a layer keeps from the arena, and the rest from `shared`.
static layer_acts place_acts(part *p, recompute_kind kind, const layer_acts *shared) {
    act_columns c = columns_of(p);
    layer_acts a = shared ? *shared : (layer_acts){0};
    bool full = kind == RECOMPUTE_FULL, none = kind == RECOMPUTE_NONE;
    a.x = act_rows(p);
    if (!full) {
        a.qkv = act(p, c.qkv);
        a.x2 = act_rows(p);
        a.gu = act(p, 2 * c.f);
    }
    if (none) {
        a.n1 = act_rows(p);
        a.att = act(p, c.q);
        a.n2 = act_rows(p);
        a.act = act(p, c.f);
        a.rstd1 = act_f32(p, p->local);
        a.rstd2 = act_f32(p, p->local);
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
        p->redo.x2 = work_rows(p);
        p->redo.gu = work(p, 2 * c.f);
    }
    if (!any) return;
    p->redo.n1 = work_rows(p);
    p->redo.att = work(p, c.q);
    p->redo.n2 = work_rows(p);
    p->redo.act = work(p, c.f);
    p->redo.rstd1 = work_bytes(p, p->local, 4);
    p->redo.rstd2 = work_bytes(p, p->local, 4);
    p->redo.lse = work_bytes(p, p->tokens * p->heads, 4);
}

static void place_slot(part *p, const vstage *v, slot *s) {
    for (int i = 0; i < v->layers; i++) {
        bool own = i == 0 || p->shape.use == PART_TRAIN;
        s->acts[i] = own ? place_acts(p, p->layer[v->layer0 + i].recompute, &p->redo) : s->acts[0];
        if (!own && p->shape.use == PART_CACHE) s->acts[i].qkv = act(p, columns_of(p).qkv);
    }
    s->out = act_rows(p);
    if (!v->last) return;
    s->final = act_rows(p);
    s->rstd = act_f32(p, p->local);
}

static void place_vstage(part *p, vstage *v) {
    for (int i = 0; i < v->slots; i++) place_slot(p, v, &v->slot[i]);
    if (p->shape.use == PART_TRAIN && !v->first) v->spare = act_rows(p);
}

static void place_backward(part *p) {
    scratch *w = &p->work;
    int64_t d = p->spec->head_dim;
    for (int i = 0; i < 3; i++) w->grad[i] = work_rows(p);
    w->dn = work_rows(p);
    if (p->shape.sequence) {
        w->whole = work(p, p->spec->hidden);
        w->partial = work(p, p->spec->hidden);
    }
    w->dqkv = work(p, (p->heads + 2 * p->kv_heads) * d);
    w->datt = work(p, p->heads * d);
    w->dact = work(p, p->ffn);
    w->dgu = work(p, 2 * p->ffn);
    w->delta_att = work_bytes(p, p->tokens * p->heads, 4);
    w->norm_partial = work_bytes(p, ops_norm_partial(p->local, p->spec->hidden), 4);
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

size_t part_stream_bytes(const part *p, size_t *largest) {
    bool blocks = p->shape.moments == MOMENTS_INT8;
    *largest = blocks ? (size_t)(p->stream_elements / MOMENT_BLOCK + 1) * sizeof(float) : 0;
    return (size_t)p->stream_elements * moments_size(p->shape.moments);
}

// Room for the largest weight's moments, but no more than is worth a copy.
static void place_stream(part *p) {
    size_t largest, bytes;
    p->stream_elements = 0;
    for (int i = 0; i < p->weights; i++)
        if (p->weight[i].own_n > p->stream_elements) p->stream_elements = p->weight[i].own_n;
    if (p->stream_elements > STREAM_ELEMENTS) p->stream_elements = STREAM_ELEMENTS;
    p->stream_elements = (p->stream_elements / MOMENT_BLOCK + 1) * MOMENT_BLOCK;
    bytes = part_stream_bytes(p, &largest);
    for (int i = 0; i < 2; i++) p->work.stream[i] = work_bytes(p, 2, (int64_t)(bytes + largest));
}

static void place_scratch(part *p) {
    int64_t steps = p->tokens * p->shape.micro;
    p->work.delta = work_rows(p);
    if (p->shape.use == PART_TRAIN) place_backward(p);
    if (p->last) place_head_scratch(p);
    if (p->shape.offload) place_stream(p);
    if (p->first && p->shape.use == PART_TRAIN) p->work.chain = work_bytes(p, p->tokens, 4);
    p->work.sums = work_bytes(p, p->weights + p->shape.micro + 1, sizeof(double));
    p->cos = work_bytes(p, p->shape.rows * p->spec->head_dim / 2, 4);
    p->sin = work_bytes(p, p->shape.rows * p->spec->head_dim / 2, 4);
    p->positions = work_bytes(p, p->tokens, 4);
    p->inputs = work_bytes(p, steps, 4);
    p->targets = work_bytes(p, steps, 4);
    if (!p->shape.mask_documents) return;
    p->doc_start = work_bytes(p, steps, 4);
    p->doc_positions = work_bytes(p, steps, 4);
}

static void place_all(part *p) {
    part_place_weights(p);
    place_redo(p);
    for (int i = 0; i < p->vstages; i++) place_vstage(p, &p->vstage[i]);
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
    p->local = p->tokens;
    if (p->shape.sequence) p->local = (p->tokens + p->m.tp - 1) / p->m.tp;
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

int64_t part_rows(const part *p, bool sequence, int64_t T, int64_t *first) {
    *first = sequence ? T * p->m.t / p->m.tp : 0;
    return sequence ? T * (p->m.t + 1) / p->m.tp - *first : T;
}

static err *list_layers(part *p, vstage *v) {
    const layout *l = p->stages;
    int first = l->first[v->index];
    v->layer0 = p->layers;
    v->layers = l->first[v->index + 1] - first;
    for (int i = 0; i < v->layers; i++)
        p->layer[p->layers++] = (layer){.index = first + i,
                                        .window = p->spec->window[first + i],
                                        .recompute = recompute_of(&p->shape, first + i)};
    v->slot = calloc((size_t)v->slots, sizeof *v->slot);
    for (int i = 0; v->slot && i < v->slots; i++)
        if (!(v->slot[i].acts = calloc((size_t)v->layers, sizeof(layer_acts))))
            return err_new(ERR_SYSTEM, "out of memory for the list of layers");
    return v->slot ? NULL : err_new(ERR_SYSTEM, "out of memory for the list of layers");
}

static err *list_vstages(part *p) {
    err *e = NULL;
    const layout *l = p->stages;
    bool train = p->shape.use == PART_TRAIN;
    p->vstages = l->stages / l->ranks;
    p->vstage = calloc((size_t)p->vstages, sizeof *p->vstage);
    p->layer = calloc((size_t)l->layers, sizeof *p->layer);
    if (!p->vstage || !p->layer) FAIL(ERR_SYSTEM, "out of memory for the list of layers");
    if (train) TRY(schedule_make(p->m.pp, p->m.p, p->vstages, p->shape.micro, &p->schedule));
    for (int i = 0; i < p->vstages; i++) {
        vstage *v = &p->vstage[i];
        *v = (vstage){.index = i * l->ranks + p->m.p, .slots = 1};
        v->first = v->index == 0;
        v->last = v->index == l->stages - 1;
        if (train) v->slots = schedule_in_flight(p->schedule, 2 * p->shape.micro * p->vstages, i);
        TRY(list_layers(p, v));
    }
done:
    return e;
}

err *part_make(const model_spec *spec, const depth_plan *plan, const layout *stages, const table *t,
               const mesh *m, const part_shape *shape, device *dev, part **out) {
    err *e = NULL;
    arena counted;
    *out = NULL;
    part *p = calloc(1, sizeof *p);
    if (!p) return err_new(ERR_SYSTEM, "out of memory for the model");
    *p = (part){.spec = spec, .plan = plan, .stages = stages, .table = t, .m = *m, .shape = *shape};
    p->shape.sequence = shape->sequence && m->tp > 1;
    p->sharded = shape->shard && m->dp > 1;
    p->first = m->p == 0;
    p->last = m->p == m->pp - 1;
    if (shape->offload && dev && dev->ops->host_memory && !dev->ops->imaginary)
        FAIL(ERR_CONFIG,
             "optimizer.offload: device %s computes in the host's memory, there is nothing to move there: "
             "leave it out",
             dev->ops->name);
    TRY(table_check_tp(spec, m->tp));
    local_sizes(p);
    TRY(list_vstages(p));
    TRY(part_list_weights(p));
    arena_count(&p->mem);
    place_all(p);
    if (dev) {
        counted = p->mem;
        p->dev = dev;
        TRY(arena_open(&p->mem, dev, &counted));
        place_all(p);
        TRY(dev->ops->event_open(dev, &p->unsaved));
        TRY(dev->ops->event_open(dev, &p->saved));
        if (!dev->ops->imaginary) TRY(upload_tables(p));
    }
    *out = p;
    return NULL;
done:
    part_free(p);
    return e;
}

static void free_vstage(vstage *v) {
    for (int i = 0; v->slot && i < v->slots; i++) free(v->slot[i].acts);
    free(v->slot);
}

void part_free(part *p) {
    if (!p) return;
    if (p->dev) {
        p->dev->ops->event_close(p->dev, p->unsaved);
        p->dev->ops->event_close(p->dev, p->saved);
        arena_close(&p->mem);
    }
    for (int i = 0; p->vstage && i < p->vstages; i++) free_vstage(&p->vstage[i]);
    free(p->vstage);
    free(p->schedule);
    free(p->bucket);
    free(p->layer);
    free(p->weight);
    free(p);
}

bool part_takes_samples(const part *p) { return p->first || p->last || p->shape.mask_documents; }

// Copies an array to the device: at once, or by way of pinned memory, and then it is queued.
static void take_row(part *p, int32_t *to, const int32_t *from, int64_t n, int32_t **staged) {
    const ops *k = p->dev->ops;
    size_t bytes = (size_t)n * sizeof(int32_t);
    if (!*staged) {
        k->upload(p->dev, to, from, bytes);
        return;
    }
    k->store(p->dev, to, memcpy(*staged, from, bytes), bytes);
    *staged += n;
}

void part_take_rows(part *p, const token_rows *rows, int64_t n, int32_t *staged) {
    take_row(p, p->inputs, rows->input, n, &staged);
    if (rows->target) take_row(p, p->targets, rows->target, n, &staged);
    if (!p->shape.mask_documents) return;
    take_row(p, p->doc_start, rows->start, n, &staged);
    take_row(p, p->doc_positions, rows->position, n, &staged);
}

void part_upload_rows(part *p, const token_rows *rows, int64_t n) { part_take_rows(p, rows, n, NULL); }
