#include "rows.h"

int64_t rows_all(const run *r) { return r->batch * (r->rows - r->first); }

int64_t rows_own(const run *r) {
    int64_t first;
    return part_rows(r->p, r->p->shape.sequence, rows_all(r), &first);
}

int64_t run_elements(const run *r) { return rows_own(r) * r->p->spec->hidden; }

void *rows_share(const run *r, void *x) { return r->p->shape.sequence ? r->p->work.partial : x; }

err *rows_sum(const run *r, void *x) {
    const part *p = r->p;
    int64_t T = rows_all(r), h = p->spec->hidden;
    if (!p->shape.sequence) return comm_sum(r->c, &r->c->tp, p->shape.dt, x, T * h);
    return comm_scatter_sum(r->c, &r->c->tp, p->shape.dt, p->work.partial, x, T, h);
}

err *rows_gather(const run *r, void *x, void **all) {
    const part *p = r->p;
    int64_t h = p->spec->hidden, first, n = part_rows(p, p->shape.sequence, rows_all(r), &first);
    size_t w = dtype_size(p->shape.dt);
    *all = x;
    if (!p->shape.sequence) return NULL;
    *all = p->work.whole;
    p->dev->ops->copy(p->dev, (char *)p->work.whole + (size_t)(first * h) * w, x, (size_t)(n * h) * w);
    return comm_gather_parts(r->c, &r->c->tp, p->shape.dt, p->work.whole, rows_all(r), h);
}
