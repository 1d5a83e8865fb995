// Model directories, and depth plans as people see them.
#include "model_dir.h"

#include <limits.h>
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

void layer_map_print(FILE *out, const depth_plan *plan) {
    for (int k = 0; k <= plan->seams; k++) {
        int first = k == 0 ? 0 : plan->seam[k - 1], end = k == plan->seams ? plan->layers : plan->seam[k];
        fprintf(out, "  layers %3d to %3d  from base layers %3d to %3d", first, end - 1, plan->donor[first],
                plan->donor[end - 1]);
        if (k > 0) fprintf(out, "  (seam: %d, then %d)", plan->donor[first - 1], plan->donor[first]);
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
    return same ? m : -1;
}

err *plan_from_options(int n, int64_t m, const char *layers, depth_plan **out) {
    if (m >= 0 && layers) return err_new(ERR_USAGE, "--m and --layers are both given, expected one of them");
    if (layers) return err_wrap(depth_from_ranges(n, layers, out), "--layers");
    return m < 0 ? NULL : depth_from_m(n, m > INT_MAX ? INT_MAX : (int)m, out);
}
