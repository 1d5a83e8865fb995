// Sums of long arrays in a fixed order, and AdamW.
#include <string.h>

#include "cpu.h"

enum { PIECES = 256 };

typedef double sum_loop(const float *x, int64_t n);

// The sum of elements first .. first+n-1: of fp32 in one go, of bf16 tile by tile.
static double sum_piece(const lanes *l, sum_loop *of, dtype dt, const void *x, int64_t first, int64_t n) {
    double sum = 0;
    if (dt == DT_F32) return of((const float *)x + first, n);
    for (int64_t at = 0; at < n; at += TILE) {
        float tile[TILE];
        int64_t count = smaller(n - at, TILE);
        sum += of(row_get(l, dt, x, first + at, tile, count), count);
    }
    return sum;
}

// Cuts x into PIECES pieces whatever the number of threads, and adds their sums in order.
static double sum_pieces(cpu_device *c, sum_loop *of, dtype dt, const void *x, int64_t n) {
    double piece[PIECES], sum = 0;
    int64_t size = round_up(pieces(n, PIECES), PANEL);
    PARALLEL(c, n)
    for (int p = 0; p < PIECES; p++) {
        int64_t first = smaller(n, p * size);
        piece[p] = sum_piece(c->lanes, of, dt, x, first, smaller(n - first, size));
    }
    for (int p = 0; p < PIECES; p++) sum += piece[p];
    return sum;
}

void cpu_sum(device *d, double *out, const float *x, int64_t n) {
    *out = sum_pieces(cpu_of(d), cpu_of(d)->lanes->sum, DT_F32, x, n);
}

void cpu_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n) {
    *out = sum_pieces(cpu_of(d), cpu_of(d)->lanes->sumsq, dt, x, n);
}

// Random numbers of elements at.. of the range, run by run of neighbours in the tensor.
static void roll(const lanes *l, const adamw *a, int64_t at, int64_t n, uint32_t *bits) {
    for (int64_t run; n > 0; n -= run, at += run, bits += run) {
        int64_t col = (a->at + at) % a->cols;
        uint64_t place = (uint64_t)(a->origin + (a->at + at) / a->cols * a->width + col);
        run = a->cols == a->width ? n : smaller(n, a->cols - col);
        run = smaller(run, ((int64_t)1 << 32) - (int64_t)(uint32_t)place);
        l->random(bits, moment_dice_of(a->key, place), (uint32_t)place, run);
    }
}

// One of the two moments of a range, and a tile of it.
typedef struct moment {
    moments_form form;
    bool second;
    void *at;
    float *largest;
} moment;

static void decode_blocks(const lanes *l, const moment *m, int64_t at, int64_t block, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i += MOMENT_BLOCK, block++)
        l->decode(to + i, (uint8_t *)m->at + at + i, m->largest[block], m->second,
                  smaller(n - i, MOMENT_BLOCK));
}

static void encode_blocks(const lanes *l, const moment *m, int64_t at, int64_t block, const float *from,
                          const uint32_t *bits, int64_t n) {
    for (int64_t i = 0; i < n; i += MOMENT_BLOCK, block++) {
        int64_t count = smaller(n - i, MOMENT_BLOCK);
        uint8_t *code = (uint8_t *)m->at + at + i;
        m->largest[block] = l->largest(from + i, count);
        if (m->largest[block] > 0)
            l->encode(code, from + i, m->largest[block], m->second, bits + i, count);
        else
            memset(code, 0, (size_t)count);
    }
}

// n elements from `at` on, where block `block` begins: in place, or in `tile`.
static float *get_moment(const lanes *l, const moment *m, int64_t at, int64_t block, float *tile, int64_t n) {
    if (m->form == MOMENTS_F32) return (float *)m->at + at;
    if (m->form == MOMENTS_BF16)
        l->to_float(tile, (bf16 *)m->at + at, n);
    else
        decode_blocks(l, m, at, block, tile, n);
    return tile;
}

static void put_moment(const lanes *l, const moment *m, int64_t at, int64_t block, const float *tile,
                       const uint32_t *bits, int64_t n) {
    if (m->form == MOMENTS_BF16) l->round((bf16 *)m->at + at, tile, bits, m->second, n);
    if (m->form == MOMENTS_INT8) encode_blocks(l, m, at, block, tile, bits, n);
}

// The update of one tile, in which block `block` of the moments begins. bf16 weights become fp32 ones and go
// back into their two halves.
static void adamw_tile(const lanes *l, const adamw *a, const adamw_step *s, int64_t at, int64_t block,
                       int64_t n) {
    float w_tile[TILE], g_tile[TILE], m_tile[TILE], v_tile[TILE];
    uint32_t bits[TILE];
    moment first = {a->form, false, a->m, a->m_largest}, second = {a->form, true, a->v, a->v_largest};
    float *w = row_place(a->dt, a->weight, at, w_tile);
    float *m = get_moment(l, &first, at, block, m_tile, n), *v = get_moment(l, &second, at, block, v_tile, n);
    bf16 *near = (bf16 *)a->weight + at;
    if (a->rest) l->join(w, near, a->rest + at, n);
    l->adamw(w, m, v, row_get(l, a->gdt, a->grad, at, g_tile, n), s, n);
    if (a->rest) l->split(near, a->rest + at, w, n);
    if (a->form == MOMENTS_F32) return;
    roll(l, a, at, n, bits);
    put_moment(l, &first, at, block, m, bits, n);
    put_moment(l, &second, at, block, v, bits, n);
}

void cpu_adamw(device *d, const adamw *a) {
    cpu_device *c = cpu_of(d);
    adamw_step s = {
        .grad_scale = a->grad_scale,
        .keep = (float)(1.0 - (double)a->lr * a->decay),
        .beta1 = a->beta1,
        .beta2 = a->beta2,
        .rate = (float)(a->lr / (1.0 - pow(a->beta1, (double)a->step))),
        .root = (float)(1.0 / sqrt(1.0 - pow(a->beta2, (double)a->step))),
        .eps = a->eps,
    };
    // A tile for the first block, then tiles of whole blocks.
    int64_t lead = a->form == MOMENTS_INT8 ? smaller(a->lead, a->n) : 0, left = a->n - lead;
    if (lead) adamw_tile(c->lanes, a, &s, 0, 0, lead);
    PARALLEL(c, left * 4)
    for (int64_t at = 0; at < left; at += TILE)
        adamw_tile(c->lanes, a, &s, lead + at, at / MOMENT_BLOCK + (lead > 0), smaller(left - at, TILE));
}
