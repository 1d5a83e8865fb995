// Which tensors a rank holds, and where: weights and gradients lie in one flat order, cut into buckets that
// are reduced over data ranks while the backward pass still runs.
#include "part_weights.h"

#include <stdlib.h>

enum { BUCKET_LEAST = 1 << 20 }; // elements: layers are put together until a message is worth sending

// ---- which tensors

static bool has_layer(const part *p, int layer) {
    for (int i = 0; i < p->layers; i++)
        if (p->layer[i].index == layer) return true;
    return false;
}

static bool holds(const part *p, const tensor_row *r, bool *tied) {
    *tied = r->role == R_EMBED && p->spec->tied && p->last && !p->first;
    if (r->layer >= 0) return has_layer(p, r->layer);
    return *tied || (r->role == R_EMBED ? p->first : p->last);
}

err *part_list_weights(part *p) {
    bool tied;
    p->weight = calloc((size_t)p->table->count, sizeof *p->weight);
    p->bucket = calloc((size_t)p->layers + 3, sizeof *p->bucket);
    if (!p->weight || !p->bucket) return err_new(ERR_SYSTEM, "out of memory for the list of tensors");
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

// ---- weights and gradients

static void *offset(void *base, int64_t n, size_t size) {
    return base ? (char *)base + (size_t)n * size : NULL;
}

typedef struct block { // consecutive tensors of one linear layer, one matrix in memory
    void *w, *grad;
    int64_t n;
} block;

static int64_t padded(int64_t n) { return (n + FLAT_UNIT - 1) / FLAT_UNIT * FLAT_UNIT; }

// Places the tensors of `roles` that exist one behind the other without gaps, so that one product does them
// all.
static block place(part *p, const role *roles, int n_roles, int layer) {
    weight *w[4] = {0};
    int64_t n = 0, at = 0;
    bool train = p->shape.use == PART_TRAIN;
    for (int i = 0; i < n_roles; i++)
        if ((w[i] = find(p, roles[i], layer))) n += w[i]->n;
    if (!n) return (block){0};
    size_t size = dtype_size(p->shape.dt), grad_size = dtype_size(p->shape.grads);
    void *data = arena_take(&p->mem, MEM_PARAM, (size_t)padded(n) * size);
    void *grad = train ? arena_take(&p->mem, MEM_GRAD, (size_t)padded(n) * grad_size) : NULL;
    for (int i = 0; i < n_roles; i++) {
        if (!w[i]) continue;
        w[i]->w = offset(data, at, size);
        w[i]->grad = offset(grad, at, grad_size);
        w[i]->flat = p->flat + at;
        at += w[i]->n;
    }
    p->flat += padded(n);
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

// ---- buckets

static void add_bucket(part *p, int64_t lo, int layer) {
    if (p->flat > lo) p->bucket[p->buckets++] = (bucket){lo, p->flat, layer};
}

static void reverse(bucket *b, int n) {
    for (int i = 0; i < n / 2; i++) {
        bucket swap = b[i];
        b[i] = b[n - 1 - i];
        b[n - 1 - i] = swap;
    }
}

static void place_layers(part *p) {
    int first = 0;
    int64_t lo = p->flat;
    for (int i = 0; i < p->layers; i++) {
        place_layer(p, &p->layer[i]);
        if (p->flat - lo < BUCKET_LEAST && i + 1 < p->layers) continue;
        add_bucket(p, lo, first); // complete when the backward pass has come down to its first layer
        lo = p->flat;
        first = i + 1;
    }
}

// The backward pass goes through the buckets from the last to the first; but for the embedding, of which both
// ends of the pipeline hold a copy when it is tied: it comes at the end.
static void place_buckets(part *p) {
    static const role embed[] = {R_EMBED}, head[] = {R_HEAD};
    block b = {0}, e = {0};
    if (p->first) e = place(p, embed, 1, -1);
    add_bucket(p, 0, -1);
    place_layers(p);
    int64_t lo = p->flat;
    if (p->last) p->fnorm = place_norm(p, R_FNORM, -1);
    if (p->last && !p->spec->tied) b = place(p, head, 1, -1);
    add_bucket(p, lo, p->layers);
    reverse(p->bucket, p->buckets);
    lo = p->flat;
    if (p->last && p->spec->tied) b = p->first ? e : place(p, embed, 1, -1);
    add_bucket(p, lo, -1);
    p->embed = e.w;
    p->d_embed = e.grad;
    if (p->last) p->head = (linear){p->spec->hidden, p->vocab, b.w, NULL, b.grad, NULL};
}

int64_t bucket_cut(const bucket *b, int dp, int d) {
    return b->lo + (b->hi - b->lo) / FLAT_UNIT * d / dp * FLAT_UNIT;
}

int64_t weight_within(const weight *w, int64_t lo, int64_t hi, int64_t *at) {
    int64_t first = w->flat > lo ? w->flat : lo, end = w->flat + w->n < hi ? w->flat + w->n : hi;
    *at = first - w->flat;
    return end > first ? end - first : 0;
}

void *weight_gradient(const part *p, const weight *w, int64_t at) {
    return (char *)w->grad + (size_t)at * dtype_size(p->shape.grads);
}

int64_t weight_share(const part *p, const weight *w, int64_t *at) {
    const bucket *b = p->bucket;
    while (w->flat < b->lo || w->flat >= b->hi) b++; // every weight is in one
    return weight_within(w, bucket_cut(b, p->m.dp, p->m.d), bucket_cut(b, p->m.dp, p->m.d + 1), at);
}

// ---- optimizer state: of the whole bucket, or of this data rank's share

_Static_assert(FLAT_UNIT % MOMENT_BLOCK == 0, "blocks of moments lie within a data rank's share");

// Which elements of the bucket's weights are this rank's: those within lo..hi-1 of the flat order. Returns
// the blocks of moments that they make.
static int64_t cut_optimizer(part *p, const bucket *b, int64_t lo, int64_t hi) {
    int64_t blocks = 0;
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (w->flat < b->lo || w->flat >= b->hi) continue;
        w->own_n = weight_within(w, lo, hi, &w->own_at);
        if (!w->own_n) w->own_at = 0;
        w->lead = MOMENT_BLOCK - (w->flat + w->own_at) % MOMENT_BLOCK;
        if (p->shape.moments == MOMENTS_INT8) blocks += moments_blocks(w->own_n, w->lead);
    }
    return blocks;
}

static void place_optimizer(part *p, const bucket *b) {
    int64_t lo = p->sharded ? bucket_cut(b, p->m.dp, p->m.d) : b->lo;
    int64_t hi = p->sharded ? bucket_cut(b, p->m.dp, p->m.d + 1) : b->hi;
    size_t n = (size_t)(hi - lo), size = moments_size(p->shape.moments);
    int64_t blocks = cut_optimizer(p, b, lo, hi), block = 0;
    mem_class where = p->shape.offload ? MEM_HOST : MEM_OPTIM;
    void *m = arena_take(&p->mem, where, n * size);
    void *v = arena_take(&p->mem, where, n * size);
    float *largest = blocks ? arena_take(&p->mem, where, (size_t)blocks * 2 * sizeof *largest) : NULL;
    int16_t *rest = p->shape.dt == DT_F32 ? NULL : arena_take(&p->mem, MEM_OPTIM, n * sizeof *rest);
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (w->flat < b->lo || w->flat >= b->hi) continue;
        int64_t at = w->own_n ? w->flat + w->own_at - lo : 0;
        w->m = offset(m, at, size);
        w->v = offset(v, at, size);
        w->rest = offset(rest, at, sizeof *rest);
        w->m_largest = offset(largest, block, sizeof *largest);
        w->v_largest = offset(largest, blocks + block, sizeof *largest);
        if (blocks) block += moments_blocks(w->own_n, w->lead);
    }
}

void part_place_weights(part *p) {
    p->flat = 0;
    p->buckets = 0;
    place_buckets(p);
    if (p->shape.use == PART_TRAIN)
        for (int i = 0; i < p->buckets; i++) place_optimizer(p, &p->bucket[i]);
}
