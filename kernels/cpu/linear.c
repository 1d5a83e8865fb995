// Bias of a linear layer.
#include <string.h>

#include "cpu.h"

void cpu_bias(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n) {
    cpu_device *c = cpu_of(d);
    const lanes *l = c->lanes;
    PARALLEL(c, T * n)
    for (int64_t t = 0; t < T; t++) {
        float y_tile[TILE], b_tile[TILE];
        for (int64_t j = 0; j < n; j += TILE) {
            int64_t count = smaller(n - j, TILE), at = t * ld + j;
            const float *from = row_get(l, dt, y, at, y_tile, count);
            float *to = row_place(dt, y, at, y_tile);
            l->add(to, from, row_get(l, dt, b, j, b_tile, count), count);
            row_put(l, dt, y, at, to, count);
        }
    }
}

// Adds the sums of one tile of columns to db. Rows are summed in blocks, so that the rounding error grows
// with the block, not with T.
static void column_sums(const lanes *l, dtype dt, float *db, const void *dy, int64_t ld, int64_t T,
                        int64_t n) {
    enum { BLOCK = 64 };
    float sum[TILE], tile[TILE];
    for (int64_t t0 = 0; t0 < T; t0 += BLOCK) {
        memset(sum, 0, (size_t)n * 4);
        for (int64_t t = t0; t < smaller(T, t0 + BLOCK); t++)
            l->add(sum, sum, row_get(l, dt, dy, t * ld, tile, n), n);
        l->add(db, db, sum, n);
    }
}

void cpu_bias_grad(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                   int64_t n) {
    enum { COLUMNS = 64 };
    cpu_device *c = cpu_of(d);
    PARALLEL(c, T * n)
    for (int64_t j = 0; j < n; j += COLUMNS) {
        float sum[COLUMNS], *to = row_place(gdt, db, j, sum);
        int64_t count = smaller(n - j, COLUMNS);
        row_get(c->lanes, gdt, db, j, sum, count);
        column_sums(c->lanes, dt, to, element(dt, dy, j), ld, T, count);
        row_put(c->lanes, gdt, db, j, to, count);
    }
}
