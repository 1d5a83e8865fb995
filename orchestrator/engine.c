#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "../worker/weights.h"
#include "gpus.h"
#include "log.h"

// Cost of the head in units of a layer: parameters, each of which is one multiplication a token. The
// embedding is a look-up and multiplies nothing.
static double head_cost(const model_spec *s) {
    double ends = (double)(s->vocab * s->hidden) * (s->tied ? 1 : 2);
    double layer = ((double)spec_parameters(s) - ends) / (double)s->layers;
    return (double)(s->vocab * s->hidden) / layer;
}

err *blueprint_make(const char *dir, const depth_ask *ask, const layout_shape *stages, blueprint *out) {
    err *e = NULL;
    layout_shape shape = *stages;
    *out = (blueprint){0};
    TRY(spec_load(dir, &out->base));
    int n = (int)out->base->layers;
    TRY(ask ? depth_make(n, ask, &out->plan) : depth_identity(n, &out->plan));
    TRY(spec_deepen(out->base, out->plan, &out->spec));
    shape.head_cost = head_cost(out->spec);
    TRY(layout_with_map(layout_make(out->plan, &shape, &out->stages), out->plan, shape.counts,
                        shape.pp * shape.interleave));
    TRY(layout_check(out->plan, out->stages));
    TRY(table_make(out->spec, out->plan, out->stages, &out->table));
    return NULL;
done:
    blueprint_free(out);
    return e;
}

void blueprint_free(blueprint *b) {
    table_free(b->table);
    layout_free(b->stages);
    depth_free(b->plan);
    spec_free(b->spec);
    spec_free(b->base);
    *b = (blueprint){0};
}

err *device_open(const char *kind, const world *w, int threads, device **out) {
    bool none = strcmp(kind, "auto") == 0 && cuda_count() == 0;
    return none || strcmp(kind, "cpu") == 0 ? cpu_open(threads, out) : cuda_open(w->local_rank, out);
}

static err *load_base(engine *g, const char *dir) {
    err *e = NULL;
    st_set *files = NULL;
    bool deepened = !g->b.plan->identity;
    TRY(st_open(dir, &files));
    TRY(table_check_files(g->b.table, files, deepened));
    TRY(weights_load(g->p, files, deepened));
done:
    st_close(files);
    return e;
}

static err *build(const engine_options *o, const world *w, engine *g) {
    err *e = NULL;
    part_shape shape = {.dt = o->dt,
                        .use = o->use,
                        .batch = o->batch,
                        .rows = o->rows,
                        .micro = 1,
                        .mask_documents = o->mask_documents};
    int threads = o->threads ? o->threads : world_threads(w);
    TRY(mesh_make(w->size, w->rank, o->pp, o->tp, MESH_TDP, &g->m));
    TRY(blueprint_make(o->dir, &o->depth, &(layout_shape){.pp = o->pp, .interleave = 1}, &g->b));
    TRY(device_open(o->device, w, threads, &g->dev));
    TRY(part_make(g->b.spec, g->b.plan, g->b.stages, g->b.table, &g->m, &shape, g->dev, &g->p));
    TRY(load_base(g, o->dir));
done:
    return e;
}

err *engine_open(const engine_options *o, const world *w, engine *g) {
    err *e = NULL;
    bool linked;
    *g = (engine){0};
    TRY(world_agree(w, build(o, w, g)));
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): world_agree keeps an error, so all is built here
    TRY(gpus_check(w, g->dev, "auto", &linked));
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): as above
    TRY(comm_open(&g->m, g->dev, g->b.spec->kv_heads, g->b.spec->tied, o->limit, &g->c));
    if (linked) TRY(comm_link(g->c));
    return NULL;
done:
    engine_close(g);
    return e;
}

void engine_close(engine *g) {
    part_free(g->p);
    comm_close(g->c);
    if (g->dev) g->dev->ops->close(g->dev);
    blueprint_free(&g->b);
    *g = (engine){0};
}
