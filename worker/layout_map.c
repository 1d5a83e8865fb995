// Layouts shown, and checked once more, whoever made them.
#include <stdio.h>
#include <stdlib.h>

#include "mesh.h"

static bool is_seam(const depth_plan *plan, int64_t layer) {
    for (int i = 0; i < plan->seams; i++)
        if (plan->seam[i] == layer) return true;
    return false;
}

// Layers from..to-1 of one stage, seams between them marked, and what of it the model does not have.
static void map_stage(FILE *out, const depth_plan *plan, int stage, int64_t from, int64_t to) {
    int64_t end = to < plan->layers ? to : plan->layers;
    fprintf(out, "\n  stage %d:", stage);
    if (to <= from) fprintf(out, " no layers");
    for (int64_t i = from < 0 ? 0 : from, last; i < end; i = last) {
        for (last = i + 1; last < end && !is_seam(plan, last);) last++;
        fprintf(out, "%s layers %lld-%lld (donors %d-%d)", i > from ? " | seam inside the stage |" : "",
                (long long)i, (long long)last - 1, plan->donor[i], plan->donor[last - 1]);
    }
    if (to > plan->layers && to > from)
        fprintf(out, " and %lld beyond the last, %d", (long long)(to - (from > end ? from : end)),
                plan->layers - 1);
    if (to > from && is_seam(plan, to)) fprintf(out, " -- seam --");
}

char *layout_map(const depth_plan *plan, const int64_t *counts, int stages) {
    char *text = NULL;
    size_t bytes;
    int64_t at = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    for (int s = 0; s < stages; s++) {
        map_stage(out, plan, s, at, at + counts[s]);
        at += counts[s] > 0 ? counts[s] : 0;
    }
    if (at < plan->layers) fprintf(out, "\n  on no stage: layers %lld-%d", (long long)at, plan->layers - 1);
    return fclose(out) == 0 ? text : (free(text), NULL);
}

err *layout_with_map(err *e, const depth_plan *plan, const int64_t *counts, int stages) {
    char *map = counts && e ? layout_map(plan, counts, stages) : NULL;
    if (!map) return e;
    err *more = err_new(err_get_code(e), "%s; the layers asked for:%s", err_text(e), map);
    err_free(e);
    free(map);
    return more;
}

// The first thing wrong with the stages' first layers, or NULL.
static err *find_fault(const layout *l) {
    if (l->first[0] > 0) return err_new(ERR_CONFIG, "layers 0-%d are on no stage", l->first[0] - 1);
    for (int s = 0; s < l->stages; s++) {
        if (l->first[s + 1] == l->first[s]) return err_new(ERR_CONFIG, "stage %d has no layers", s);
        if (l->first[s + 1] < l->first[s])
            return err_new(ERR_CONFIG,
                           "stage %d begins at layer %d, before stage %d, at layer %d: layers out of order "
                           "or on two stages",
                           s + 1, l->first[s + 1], s, l->first[s]);
    }
    if (l->first[l->stages] == l->layers) return NULL;
    return err_new(ERR_CONFIG, "the stages hold layers up to %d, the model has %d", l->first[l->stages] - 1,
                   l->layers);
}

err *layout_check(const depth_plan *plan, const layout *l) {
    err *e = find_fault(l);
    int64_t *counts = e ? calloc((size_t)l->stages, sizeof *counts) : NULL;
    for (int s = 0; counts && s < l->stages; s++) counts[s] = l->first[s + 1] - l->first[s];
    e = layout_with_map(e, plan, counts, l->stages);
    free(counts);
    return e;
}
