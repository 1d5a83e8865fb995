// Token embedding.
#include <string.h>

#include "cpu.h"

void cpu_embed(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T, int64_t h,
               int64_t first, int64_t rows) {
    cpu_device *c = cpu_of(d);
    size_t bytes = (size_t)h * dtype_size(dt);
    PARALLEL(c, T * h)
    for (int64_t t = 0; t < T; t++) {
        int64_t row = tokens[t] - first;
        void *to = element(dt, y, t * h);
        if (row < 0 || row >= rows)
            memset(to, 0, bytes);
        else
            memcpy(to, element(dt, table, row * h), bytes);
    }
}

void cpu_embed_grad(device *d, dtype dt, float *dtable, const void *dy, const int32_t *tokens, int64_t T,
                    int64_t h, int64_t first, int64_t rows) {
    cpu_device *c = cpu_of(d);
    // Threads share out the columns: each sees every token in order, so the sums do not depend on them.
    int64_t width = smaller(TILE, round_up(pieces(h, c->threads), PANEL));
    PARALLEL(c, T * h)
    for (int64_t j = 0; j < h; j += width) {
        float tile[TILE];
        int64_t n = smaller(h - j, width);
        for (int64_t t = 0; t < T; t++) {
            int64_t row = tokens[t] - first;
            if (row < 0 || row >= rows) continue;
            float *to = dtable + row * h + j;
            c->lanes->add(to, to, row_get(c->lanes, dt, dy, t * h + j, tile, n), n);
        }
    }
}
