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

// Links the rows of each token: chain[t] is the next row of the same token, or T; its complement where t is
// not the token's first row, or the token is not among these rows. Needs a number for every row of the table.
static bool link_rows(cpu_device *c, int32_t *chain, const int32_t *tokens, int32_t T, int64_t first,
                      int64_t rows) {
    if (!cpu_scratch(c, rows)) return false;
    int32_t *head = (int32_t *)(void *)c->scratch[0].at;
    for (int64_t r = 0; r < rows; r++) head[r] = T;
    for (int32_t t = T - 1; t >= 0; t--) {
        int64_t row = tokens[t] - first;
        bool here = row >= 0 && row < rows;
        chain[t] = here ? head[row] : T;
        if (here) head[row] = t;
    }
    for (int32_t t = 0; t < T; t++) {
        int64_t row = tokens[t] - first;
        if (row < 0 || row >= rows || head[row] != t) chain[t] = ~chain[t];
    }
    return true;
}

static int32_t next_row(const int32_t *chain, int32_t t) { return chain[t] < 0 ? ~chain[t] : chain[t]; }

void cpu_embed_grad(device *d, dtype dt, dtype gdt, void *dtable, const void *dy, const int32_t *tokens,
                    int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows) {
    cpu_device *c = cpu_of(d);
    const lanes *l = c->lanes;
    // Threads share out the columns: each sees every token in order, so the sums do not depend on them.
    int64_t width = smaller(TILE, round_up(pieces(h, c->threads), PANEL));
    if (!link_rows(c, chain, tokens, (int32_t)T, first, rows)) return;
    PARALLEL(c, T * h)
    for (int64_t j = 0; j < h; j += width) {
        float tile[TILE], sum[TILE];
        int64_t n = smaller(h - j, width);
        for (int32_t t = 0; t < T; t++) {
            if (chain[t] < 0) continue;
            int64_t at = (tokens[t] - first) * h + j;
            float *to = row_place(gdt, dtable, at, sum);
            row_get(l, gdt, dtable, at, sum, n);
            for (int32_t i = t; i < T; i = next_row(chain, i))
                l->add(to, to, row_get(l, dt, dy, i * h + j, tile, n), n);
            row_put(l, gdt, dtable, at, to, n);
        }
    }
}
