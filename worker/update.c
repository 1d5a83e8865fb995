#include "update.h"

#include <string.h>

#include <xxhash.h>

err *updater_open(part *p, updater *out) {
    err *e = NULL;
    *out = (updater){.p = p};
    for (int i = 0; i < 2 && p->shape.offload; i++) {
        TRY(p->dev->ops->event_open(p->dev, &out->come[i]));
        TRY(p->dev->ops->event_open(p->dev, &out->done[i]));
        TRY(p->dev->ops->event_open(p->dev, &out->gone[i]));
    }
done:
    return e;
}

void updater_close(updater *u) {
    for (int i = 0; i < 2 && u->p && u->p->shape.offload; i++) {
        event *all[] = {u->come[i], u->done[i], u->gone[i]};
        for (int k = 0; k < 3; k++)
            if (all[k]) u->p->dev->ops->event_close(u->p->dev, all[k]);
    }
}

float update_lr_scale(const step_options *o, const weight *w) { return o->scale_lr ? w->lr_scale : 1; }

// What fixes the random numbers of a weight in an update: nothing of the mesh.
static uint64_t key_of(const weight *w, uint64_t seed, int64_t update) {
    return XXH3_64bits_withSeed(w->row->name, strlen(w->row->name),
                                seed * 0x9e3779b97f4a7c15u + (uint64_t)update);
}

static adamw update_of(const part *p, const weight *w, int64_t update, const step_options *o, double scale) {
    int64_t width = w->row->shape[1];
    return (adamw){.dt = p->shape.dt,
                   .n = w->own_n,
                   .weight = (char *)w->w + (size_t)w->own_at * dtype_size(p->shape.dt),
                   .rest = w->rest,
                   .form = p->shape.moments,
                   .m = w->m,
                   .v = w->v,
                   .m_largest = w->m_largest,
                   .v_largest = w->v_largest,
                   .lead = w->lead,
                   .gdt = p->shape.grads,
                   .grad = weight_gradient(p, w, w->own_at),
                   .grad_scale = (float)scale,
                   .lr = (float)(o->lr * update_lr_scale(o, w)),
                   .beta1 = (float)o->beta1,
                   .beta2 = (float)o->beta2,
                   .eps = (float)o->eps,
                   .decay = w->row->decay ? (float)o->weight_decay : 0,
                   .step = update,
                   .key = key_of(w, o->seed, update),
                   .origin = w->s.row0 * width + w->s.col0,
                   .at = w->own_at,
                   .cols = w->s.cols,
                   .width = width};
}

// ---- moments from host memory, and back

typedef struct span { // one array of a chunk
    char *host, *here;
    size_t bytes;
} span;
enum { SPANS = 4 };

// Moments, and the largest of their blocks, of elements first..first+n-1; their places in buffer `here`.
static void list_spans(const part *p, const adamw *a, int64_t first, int64_t n, char *here, span s[SPANS]) {
    size_t size = moments_size(a->form), largest, room = part_stream_bytes(p, &largest);
    int64_t block = first ? 1 + (first - a->lead) / MOMENT_BLOCK : 0;
    int64_t blocks = a->form == MOMENTS_INT8 ? moments_blocks(n, first ? MOMENT_BLOCK : a->lead) : 0;
    size_t skip = blocks ? (size_t)block * sizeof(float) : 0;
    s[0] = (span){(char *)a->m + (size_t)first * size, here, (size_t)n * size};
    s[1] = (span){(char *)a->v + (size_t)first * size, here + room, (size_t)n * size};
    s[2] = (span){(char *)a->m_largest + skip, here + 2 * room, (size_t)blocks * sizeof(float)};
    s[3] = (span){(char *)a->v_largest + skip, here + 2 * room + largest, (size_t)blocks * sizeof(float)};
}

// The same update of a part, with the moments where they have come to.
static adamw part_of(const adamw *a, int64_t first, int64_t n, const span s[SPANS]) {
    adamw x = *a;
    x.n = n;
    x.weight = (char *)a->weight + (size_t)first * dtype_size(a->dt);
    x.rest = a->rest ? a->rest + first : NULL;
    x.grad = (const char *)a->grad + (size_t)first * dtype_size(a->gdt);
    x.m = s[0].here, x.v = s[1].here;
    x.m_largest = (float *)(void *)s[2].here, x.v_largest = (float *)(void *)s[3].here;
    x.at = a->at + first;
    x.lead = first ? MOMENT_BLOCK : a->lead;
    return x;
}

static void stream_part(updater *u, const adamw *a, int64_t first, int64_t n) {
    device *d = u->p->dev;
    const ops *k = d->ops;
    int i = (int)(u->turn++ % 2);
    span s[SPANS];
    list_spans(u->p, a, first, n, u->p->work.stream[i], s);
    adamw x = part_of(a, first, n, s);
    k->use(d, QUEUE_STORE);
    k->follow(d, u->gone[i]);
    for (int j = 0; j < SPANS; j++)
        if (s[j].bytes) k->store(d, s[j].here, s[j].host, s[j].bytes);
    k->mark(d, u->come[i]);
    k->use(d, QUEUE_COMPUTE);
    k->follow(d, u->come[i]);
    k->adamw(d, &x);
    k->mark(d, u->done[i]);
    k->use(d, QUEUE_FETCH);
    k->follow(d, u->done[i]);
    for (int j = 0; j < SPANS; j++)
        if (s[j].bytes) k->fetch(d, s[j].host, s[j].here, s[j].bytes);
    k->mark(d, u->gone[i]);
    k->use(d, QUEUE_COMPUTE);
}

// In parts of whole blocks.
static void stream(updater *u, const adamw *a) {
    int64_t most = u->p->stream_elements, n;
    for (int64_t first = 0; first < a->n; first += n) {
        n = first ? most : most - MOMENT_BLOCK + a->lead;
        if (n > a->n - first) n = a->n - first;
        stream_part(u, a, first, n);
    }
}

// Until all moments are back in host memory, where a checkpoint finds them.
static err *wait_for_moments(const part *p) {
    p->dev->ops->use(p->dev, QUEUE_FETCH);
    err *e = p->dev->ops->sync(p->dev);
    p->dev->ops->use(p->dev, QUEUE_COMPUTE);
    return e;
}

err *updater_run(updater *u, int64_t update, const step_options *o, double scale) {
    part *p = u->p;
    for (int i = 0; i < p->weights; i++) {
        const weight *w = &p->weight[i];
        if (update_lr_scale(o, w) == 0 || !w->own_n) continue; // frozen, or of other data ranks
        adamw a = update_of(p, w, update, o, scale);
        if (p->shape.offload)
            stream(u, &a);
        else
            p->dev->ops->adamw(p->dev, &a);
    }
    return p->shape.offload ? wait_for_moments(p) : p->dev->ops->failure(p->dev);
}
