#include "seam_log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/seam.h"
#include "fsutil.h"

static bool is_seam(const depth_plan *p, int layer) {
    for (int i = 0; i < p->seams; i++)
        if (p->seam[i] == layer) return true;
    return false;
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *as_json(const training *t, const layer_report *r) {
    const depth_plan *p = t->b.plan;
    json_t *layers = json_array(), *seams = json_array();
    for (int i = 0; i < p->seams; i++) json_array_append_new(seams, json_integer(p->seam[i]));
    for (int l = 0; l < p->layers; l++)
        json_array_append_new(layers, json_pack("{s:i, s:i, s:b, s:o, s:o, s:o, s:o}", "layer", l, "donor",
                                                p->donor[l], "new", p->init[l] != LAYER_KEPT, "grad_norm",
                                                number(r[l].grad_norm), "distance", number(r[l].distance),
                                                "rms", number(r[l].rms), "cosine", number(r[l].cosine)));
    return json_pack("{s:I, s:o, s:o}", "step", (json_int_t)t->state.step, "seams", seams, "layers", layers);
}

static void print_table(FILE *f, const training *t, const layer_report *r) {
    const depth_plan *p = t->b.plan;
    fprintf(f, "step %lld\nlayer donor   gradient  distance       rms    cosine\n", (long long)t->state.step);
    for (int l = 0; l < p->layers; l++) {
        if (is_seam(p, l)) fprintf(f, "----- seam ------------------------------------\n");
        fprintf(f, "%5d %5d%1s %9.3g %9.3g %9.4g %9.5f\n", l, p->donor[l], layer_init_mark(p->init[l]),
                r[l].grad_norm, r[l].distance, r[l].rms, r[l].cosine);
    }
}

static err *write_table(const training *t, const layer_report *r) {
    char *text = NULL, *path = path_join(t->cfg->run.dir, "seam.txt");
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    err *e = f ? NULL : err_errno(errno, "out of memory for %s", path);
    if (f) {
        print_table(f, t, r);
        fclose(f);
        e = write_file_atomic(path, text, bytes);
    }
    free(text);
    free(path);
    return e;
}

err *seam_log(training *t) {
    err *e = NULL;
    st_set *donors = NULL;
    layer_report *r = calloc((size_t)t->b.plan->layers, sizeof *r);
    err *mine = r ? NULL : err_new(ERR_SYSTEM, "out of memory for the report of layers");
    if (!mine && !t->cfg->model.random) mine = st_open(t->cfg->model.base, &donors);
    TRY(comm_agree(t->c, mine));
    if (!r) goto done; // told by comm_agree
    TRY(seam_report(t->p, t->c, donors, t->t->grad_scale, r));
    if (t->m.rank) goto done;
    TRY(metrics_write(t->log, as_json(t, r)));
    TRY(write_table(t, r));
done:
    st_close(donors);
    free(r);
    return e;
}
