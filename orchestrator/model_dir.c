// Model directories, and depth plans as people see them.
#include "model_dir.h"

#include <string.h>

err *model_dir_open(const char *dir, model_dir *out) {
    err *e = NULL;
    *out = (model_dir){0};
    TRY(spec_load(dir, &out->spec));
    TRY(st_open(dir, &out->files));
    TRY(depth_identity((int)out->spec->layers, &out->same));
    TRY(table_make(out->spec, out->same, NULL, &out->table));
    TRY(table_check_files(out->table, out->files, false));
done:
    return e;
}

void model_dir_close(model_dir *m) {
    table_free(m->table);
    depth_free(m->same);
    st_close(m->files);
    spec_free(m->spec);
    *m = (model_dir){0};
}

static const char *how_new(layer_init k) {
    return k == LAYER_ZERO ? "  (new, zero output)" : k == LAYER_COPY ? "  (new, a copy)" : "";
}

void layer_map_print(FILE *out, const depth_plan *plan) {
    for (int i = 0, end, k = 0; i < plan->layers; i = end) {
        end = depth_run_end(plan, i);
        fprintf(out, "  layers %3d to %3d  from base layers %3d to %3d%s", i, end - 1, plan->donor[i],
                plan->donor[end - 1], how_new(plan->init[i]));
        bool seam = k < plan->seams && plan->seam[k] == i;
        if (seam) fprintf(out, "  (seam: %d, then %d)", plan->donor[i - 1], plan->donor[i]);
        k += seam;
        fputc('\n', out);
    }
}

int plan_m(const depth_plan *plan) {
    depth_plan *solar = NULL;
    int m = plan->base_layers - plan->layers / 2;
    if (plan->layers % 2 != 0 || m < 0 || m >= plan->base_layers) return -1;
    err *e = depth_from_m(plan->base_layers, m, &solar);
    bool same = !e && memcmp(solar->donor, plan->donor, (size_t)plan->layers * sizeof *plan->donor) == 0;
    err_free(e);
    depth_free(solar);
    return same && !plan->fresh ? m : -1;
}

err *depth_options_check(const depth_ask *a) {
    const char *conflict = depth_conflict(a);
    return conflict ? err_new(ERR_USAGE, "%s (--m, --layers, --insert-every, --insert-after, --insert-init)",
                              conflict)
                    : NULL;
}
