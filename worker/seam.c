#include "seam.h"

#include <math.h>
#include <stdlib.h>

#include "weights.h"

// Sums over ranks and tensors, from which a report is made.
enum { SUM_GRAD, SUM_MOVED, SUM_DONOR, SUM_IN, SUM_OUT, SUM_DOT, SUM_VALUES, SUMS };

static bool counts(const weight *w) { return w->s.copy == 0 && !w->tied && w->row->layer >= 0; }

// The step left the squares of this data rank's share of every gradient in work.sums.
static err *gradients(part *p, double (*sums)[SUMS]) {
    double *squares = malloc((size_t)p->weights * sizeof *squares);
    if (!squares) return err_new(ERR_SYSTEM, "out of memory for the report of layers");
    p->dev->ops->download(p->dev, squares, p->work.sums, (size_t)p->weights * sizeof *squares);
    err *e = p->dev->ops->sync(p->dev);
    for (int i = 0; i < p->weights && !e; i++)
        if (counts(&p->weight[i])) sums[p->weight[i].row->layer][SUM_GRAD] += squares[i];
    free(squares);
    return e;
}

static err *distances(part *p, const st_set *donors, double (*sums)[SUMS]) {
    err *e = NULL;
    for (int i = 0; i < p->weights && donors; i++) {
        const weight *w = &p->weight[i];
        double moved, donor;
        if (!counts(w)) continue;
        TRY(weights_distance(p, w, donors, &moved, &donor));
        sums[w->row->layer][SUM_MOVED] += moved;
        sums[w->row->layer][SUM_DONOR] += donor;
    }
done:
    return err_wrap(e, "distance from the donors");
}

static float value(dtype dt, const void *x, int64_t i) {
    return dt == DT_F32 ? ((const float *)x)[i] : bf16_to_float(((const bf16 *)x)[i]);
}

// The residual stream before every layer, and behind the last, of the slot that the last micro-batch used.
static err *activations(part *p, const vstage *v, double (*sums)[SUMS]) {
    err *e = NULL;
    int64_t first, n = part_rows(p, p->shape.sequence, p->tokens, &first) * p->spec->hidden;
    size_t bytes = (size_t)n * dtype_size(p->shape.dt);
    const slot *s = &v->slot[(p->shape.micro - 1) % v->slots];
    void *in = malloc(bytes), *out = malloc(bytes);
    if (!in || !out) FAIL(ERR_SYSTEM, "out of memory for the report of layers");
    p->dev->ops->download(p->dev, in, s->acts[0].x, bytes);
    for (int l = 0; l < v->layers; l++) {
        double *sum = sums[p->layer[v->layer0 + l].index];
        p->dev->ops->download(p->dev, out, l + 1 < v->layers ? s->acts[l + 1].x : s->out, bytes);
        TRY(p->dev->ops->sync(p->dev));
        for (int64_t i = 0; i < n; i++) {
            double x = value(p->shape.dt, in, i), y = value(p->shape.dt, out, i);
            sum[SUM_IN] += x * x;
            sum[SUM_OUT] += y * y;
            sum[SUM_DOT] += x * y;
        }
        sum[SUM_VALUES] += (double)n;
        void *swap = in;
        in = out;
        out = swap;
    }
done:
    free(in);
    free(out);
    return e;
}

static layer_report report_of(const double *sum, double grad_scale) {
    return (layer_report){.grad_norm = sqrt(sum[SUM_GRAD]) * grad_scale,
                          .distance = sqrt(sum[SUM_MOVED]) / sqrt(sum[SUM_DONOR]), // 0/0 is NaN: no donors
                          .rms = sqrt(sum[SUM_OUT] / sum[SUM_VALUES]),
                          .cosine = sum[SUM_DOT] / sqrt(sum[SUM_IN] * sum[SUM_OUT])};
}

err *seam_report(part *p, comm *c, const st_set *donors, double grad_scale, layer_report *out) {
    err *e = NULL;
    int layers = p->plan->layers;
    double(*sums)[SUMS] = calloc((size_t)layers, sizeof *sums);
    err *mine = sums ? NULL : err_new(ERR_SYSTEM, "out of memory for the report of layers");
    if (!mine) mine = gradients(p, sums);
    if (!mine) mine = distances(p, donors, sums);
    bool here = p->m.d == 0 && (p->m.t == 0 || p->shape.sequence); // else others hold the same
    for (int v = 0; v < p->vstages && here && !mine; v++) mine = activations(p, &p->vstage[v], sums);
    TRY(comm_agree(c, mine));
    if (!sums) goto done; // told by comm_agree
    TRY(comm_sum_world(c, &sums[0][0], layers * SUMS));
    for (int l = 0; l < layers; l++) out[l] = report_of(sums[l], grad_scale);
done:
    free(sums);
    return err_wrap(e, "report of layers");
}
