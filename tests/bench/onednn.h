// oneDNN's matrix products (C API of versions 2 and 3), to compare ours with. Without its header at build
// time there is nothing to compare: onednn_open leaves *out NULL.
#ifndef SOLAR_BENCH_ONEDNN_H
#define SOLAR_BENCH_ONEDNN_H

#include "cpu/cpu.h"

typedef struct onednn onednn;

#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

// What the cache of primitives is looked up by. Every byte is set: keys are compared as memory.
typedef struct key {
    int64_t m, n, k, lda, ldb, ldc, options;
} key;

typedef struct entry {
    key key; // m == 0: free
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
} entry;

enum { SLOTS = 1024, MOST = 768 }; // past MOST shapes the cache starts anew

struct onednn {
    int threads, used;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    entry slot[SLOTS];
};

#define DNN(call)                                                                                            \
    do {                                                                                                     \
        dnnl_status_t status = (call);                                                                       \
        if (status != dnnl_success) FAIL(ERR_SYSTEM, "oneDNN: " #call " returned status %d", (int)status);   \
    } while (0)

// ---- the two C APIs

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
#define VIEW(l)       (l)
#define layout_make   dnnl_memory_desc_create_with_strides
#define SUM_ARGUMENTS 1.0f, 0, dnnl_data_type_undef

static void layout_free(layout l) {
    if (l) dnnl_memory_desc_destroy(l);
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *abc,
                                 dnnl_primitive_attr_t attributes) {
    return dnnl_matmul_primitive_desc_create(out, engine, abc[0], abc[1], NULL, abc[2], attributes);
}
#else
typedef dnnl_memory_desc_t layout;
#define VIEW(l)       (&(l))
#define layout_make   dnnl_memory_desc_init_by_strides
#define SUM_ARGUMENTS 1.0f

static void layout_free(layout l) { (void)l; }

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *abc,
                                 dnnl_primitive_attr_t attributes) {
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, &abc[0], &abc[1], NULL, &abc[2]);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &desc, attributes, engine, NULL) : status;
}
#endif

// ---- primitives

static dnnl_data_type_t type_of(dtype dt) { return dt == DT_F32 ? dnnl_f32 : dnnl_bf16; }

static err *make_layouts(const product *p, layout abc[3]) {
    err *e = NULL;
    DNN(layout_make(&abc[0], 2, (dnnl_dims_t){p->m, p->k}, type_of(p->dt),
                    p->trans_a ? (dnnl_dims_t){1, p->lda} : (dnnl_dims_t){p->lda, 1}));
    DNN(layout_make(&abc[1], 2, (dnnl_dims_t){p->k, p->n}, type_of(p->dt),
                    p->trans_b ? (dnnl_dims_t){1, p->ldb} : (dnnl_dims_t){p->ldb, 1}));
    DNN(layout_make(&abc[2], 2, (dnnl_dims_t){p->m, p->n}, type_of(p->cdt), (dnnl_dims_t){p->ldc, 1}));
done:
    return e;
}

static err *make_attributes(const product *p, dnnl_primitive_attr_t *out) {
    err *e = NULL;
    dnnl_post_ops_t post = NULL;
    DNN(dnnl_primitive_attr_create(out));
    DNN(dnnl_post_ops_create(&post));
    if (p->accumulate) DNN(dnnl_post_ops_append_sum(post, SUM_ARGUMENTS));
    DNN(dnnl_primitive_attr_set_post_ops(*out, post));
done:
    if (post) dnnl_post_ops_destroy(post);
    return e;
}

static void entry_clear(entry *s) {
    if (s->primitive) dnnl_primitive_destroy(s->primitive);
    if (s->a) dnnl_memory_destroy(s->a);
    if (s->b) dnnl_memory_destroy(s->b);
    if (s->c) dnnl_memory_destroy(s->c);
    *s = (entry){0};
}

static err *entry_make(const onednn *o, const product *p, entry *s) {
    err *e = NULL;
    layout abc[3];
    memset(abc, 0, sizeof abc);
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t desc = NULL;
    TRY(make_layouts(p, abc));
    TRY(make_attributes(p, &attributes));
    DNN(matmul_desc(&desc, o->engine, abc, attributes));
    DNN(dnnl_primitive_create(&s->primitive, desc));
    DNN(dnnl_memory_create(&s->a, VIEW(abc[0]), o->engine, DNNL_MEMORY_NONE));
    DNN(dnnl_memory_create(&s->b, VIEW(abc[1]), o->engine, DNNL_MEMORY_NONE));
    DNN(dnnl_memory_create(&s->c, VIEW(abc[2]), o->engine, DNNL_MEMORY_NONE));
done:
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    for (int i = 0; i < 3; i++) layout_free(abc[i]);
    return err_wrap(e, "product %lld x %lld x %lld", (long long)p->m, (long long)p->n, (long long)p->k);
}

// ---- the cache

static key key_of(const product *p) {
    int64_t options =
        p->trans_a | p->trans_b << 1 | p->accumulate << 2 | (int64_t)p->dt << 3 | (int64_t)p->cdt << 6;
    return (key){p->m, p->n, p->k, p->lda, p->ldb, p->ldc, options};
}

static uint64_t hash_of(const key *k) {
    const int64_t parts[] = {k->m, k->n, k->k, k->lda, k->ldb, k->ldc, k->options};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        h = (h ^ (uint64_t)parts[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    return h;
}

static void cache_clear(onednn *o) {
    for (int i = 0; i < SLOTS; i++) entry_clear(&o->slot[i]);
    o->used = 0;
}

static err *find(onednn *o, const product *p, entry **out) {
    err *e = NULL;
    key k = key_of(p);
    uint64_t at = hash_of(&k) % SLOTS;
    for (; o->slot[at].key.m; at = (at + 1) % SLOTS) {
        *out = &o->slot[at];
        if (memcmp(&(*out)->key, &k, sizeof k) == 0) return NULL;
    }
    if (o->used == MOST) {
        cache_clear(o);
        at = hash_of(&k) % SLOTS;
    }
    entry *s = &o->slot[at];
    TRY(entry_make(o, p, s));
    s->key = k;
    o->used++;
    *out = s;
    return NULL;
done:
    entry_clear(s);
    return e;
}

static err *onednn_product(onednn *o, const product *p) {
    err *e = NULL;
    entry *s;
    // oneDNN takes its threads from the calling thread's setting, which is not ours alone
    if (omp_get_max_threads() != o->threads) omp_set_num_threads(o->threads);
    TRY(find(o, p, &s));
    DNN(dnnl_memory_set_data_handle(s->a, (void *)p->a));
    DNN(dnnl_memory_set_data_handle(s->b, (void *)p->b));
    DNN(dnnl_memory_set_data_handle(s->c, p->c));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, s->a}, {DNNL_ARG_WEIGHTS, s->b}, {DNNL_ARG_DST, s->c}};
    DNN(dnnl_primitive_execute(s->primitive, o->stream, 3, arguments));
    DNN(dnnl_stream_wait(o->stream));
done:
    return e;
}

// ---- opening

static void onednn_close(onednn *o) {
    if (!o) return;
    cache_clear(o);
    if (o->stream) dnnl_stream_destroy(o->stream);
    if (o->engine) dnnl_engine_destroy(o->engine);
    free(o);
}

static err *onednn_open(int threads, onednn **out) {
    err *e = NULL;
    *out = NULL;
    onednn *o = calloc(1, sizeof *o);
    if (!o) return err_new(ERR_SYSTEM, "no memory to open oneDNN");
    o->threads = threads;
    DNN(dnnl_engine_create(&o->engine, dnnl_cpu, 0));
    DNN(dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags));
    *out = o;
    return NULL;
done:
    onednn_close(o);
    return e;
}

#else
static err *onednn_open(int threads, onednn **out) {
    (void)threads;
    *out = NULL;
    return NULL;
}
static err *onednn_product(onednn *o, const product *p) {
    (void)o, (void)p;
    return err_new(ERR_RUNTIME, "built without oneDNN");
}
static void onednn_close(onednn *o) { (void)o; }
#endif

#endif
