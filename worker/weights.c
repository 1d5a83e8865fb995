#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum { CHUNK = 1 << 22 }; // elements converted at a time

typedef struct staging {
    float *f;
    halves_buffer h;
} staging;

err *halves_open(halves_buffer *h) {
    *h = (halves_buffer){malloc((size_t)CHUNK * sizeof *h->near), malloc((size_t)CHUNK * sizeof *h->rest)};
    return h->near && h->rest ? NULL : err_new(ERR_SYSTEM, "out of memory for reading weights");
}

void halves_close(halves_buffer *h) {
    free(h->near);
    free(h->rest);
}

static err *staging_open(staging *s) {
    err *e = halves_open(&s->h);
    s->f = malloc((size_t)CHUNK * 4);
    return e || s->f ? e : err_new(ERR_SYSTEM, "out of memory for reading weights");
}

static void staging_close(staging *s) {
    free(s->f);
    halves_close(&s->h);
}

// n bf16 weights at element `at`, and of those whose optimizer state is this rank's the other halves.
static err *put_halves(part *p, weight *w, int64_t at, const float *f, int64_t n, halves_buffer *h) {
    const ops *k = p->dev->ops;
    int64_t lo = at > w->own_at ? at : w->own_at;
    int64_t hi = at + n < w->own_at + w->own_n ? at + n : w->own_at + w->own_n;
    for (int64_t i = 0; i < n; i++) {
        halves x = float_split(f[i]);
        h->near[i] = x.near;
        h->rest[i] = x.rest;
    }
    k->upload(p->dev, (bf16 *)w->w + at, h->near, (size_t)n * sizeof(bf16));
    if (w->rest && hi > lo)
        k->upload(p->dev, w->rest + (lo - w->own_at), h->rest + (lo - at), (size_t)(hi - lo) * sizeof(bf16));
    return k->sync(p->dev);
}

err *weights_put(part *p, weight *w, int64_t at, const float *f, int64_t n, halves_buffer *h) {
    err *e = NULL;
    const ops *k = p->dev->ops;
    if (p->shape.dt == DT_F32) {
        k->upload(p->dev, (float *)w->w + at, f, (size_t)n * 4);
        return k->sync(p->dev);
    }
    for (int64_t i = 0; i < n; i += CHUNK)
        TRY(put_halves(p, w, at + i, f + i, n - i < CHUNK ? n - i : CHUNK, h));
done:
    return e;
}

static err *put(part *p, weight *w, int64_t at, int64_t n, staging *s) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): an error ends the loop of who calls this, and is returned
    return weights_put(p, w, at, s->f, n, &s->h);
}

static err *must_find(const st_set *files, const char *name, const st_tensor **out) {
    *out = st_find(files, name);
    if (*out) return NULL;
    return err_new(ERR_INPUT, "%s holds no tensor %s", st_file_path(files, 0), name);
}

// Reads the slice of one tensor in chunks of whole rows and hands them to the weight.
static err *read_slice(part *p, weight *w, const st_set *files, const st_tensor *t, staging *s) {
    err *e = NULL;
    int64_t step = CHUNK / w->s.cols;
    if (step < 1)
        FAIL(ERR_INPUT, "tensor %s has rows of %lld elements, more than %d", t->name, (long long)w->s.cols,
             CHUNK);
    for (int64_t r = 0; r < w->s.rows; r += step) {
        int64_t rows = w->s.rows - r < step ? w->s.rows - r : step, n = rows * w->s.cols, at = r * w->s.cols;
        TRY(st_read_slice(files, t, w->s.row0 + r, rows, w->s.col0, w->s.cols, DT_F32, s->f));
        TRY(put(p, w, at, n, s));
    }
done:
    return e;
}

static err *put_zeros(part *p, weight *w, staging *s) {
    err *e = NULL;
    memset(s->f, 0, (size_t)(w->n < CHUNK ? w->n : CHUNK) * sizeof *s->f);
    for (int64_t at = 0; at < w->n; at += CHUNK) TRY(put(p, w, at, w->n - at < CHUNK ? w->n - at : CHUNK, s));
done:
    return e;
}

err *weights_load(part *p, const st_set *files, bool donor_names) {
    err *e = NULL;
    staging s = {0};
    const st_tensor *t;
    TRY(staging_open(&s));
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        if (donor_names && w->row->zero) {
            TRY(put_zeros(p, w, &s));
            continue;
        }
        TRY(must_find(files, donor_names ? w->row->donor : w->row->name, &t));
        TRY(read_slice(p, w, files, t, &s));
    }
done:
    staging_close(&s);
    return err_wrap(e, "loading weights");
}

// ---- distance from the donor

// fp32 values of n elements of a weight, which are this rank's own: h has room for them.
static err *fetch(part *p, const weight *w, int64_t at, int64_t n, halves_buffer *h, float *to) {
    const ops *k = p->dev->ops;
    if (p->shape.dt == DT_F32) {
        k->download(p->dev, to, (float *)w->w + at, (size_t)n * 4);
        return k->sync(p->dev);
    }
    k->download(p->dev, h->near, (bf16 *)w->w + at, (size_t)n * sizeof(bf16));
    k->download(p->dev, h->rest, w->rest + (at - w->own_at), (size_t)n * sizeof(bf16));
    err *e = k->sync(p->dev);
    for (int64_t i = 0; i < n && !e; i++) to[i] = float_join(h->near[i], h->rest[i]);
    return e;
}

err *weights_distance(part *p, const weight *w, const st_set *donors, double *moved, double *donor) {
    err *e = NULL;
    const st_tensor *t;
    halves_buffer h = {0};
    int64_t step = CHUNK / 2 / w->s.cols > 0 ? CHUNK / 2 / w->s.cols : 1;
    float *now = malloc((size_t)(step * w->s.cols) * 4), *then = malloc((size_t)(step * w->s.cols) * 4);
    *moved = *donor = 0;
    if (!now || !then) FAIL(ERR_SYSTEM, "out of memory for comparing weights");
    TRY(halves_open(&h));
    TRY(must_find(donors, w->row->donor, &t));
    int64_t share_at, share_end = weight_share(p, w, &share_at);
    share_end += share_at;
    for (int64_t r = 0; r < w->s.rows; r += step) {
        int64_t rows = w->s.rows - r < step ? w->s.rows - r : step, n = rows * w->s.cols, at = r * w->s.cols;
        int64_t lo = at > share_at ? at : share_at, hi = at + n < share_end ? at + n : share_end;
        if (lo >= hi) continue; // another data rank's
        if (w->row->zero)
            memset(then, 0, (size_t)n * sizeof *then);
        else
            TRY(st_read_slice(donors, t, w->s.row0 + r, rows, w->s.col0, w->s.cols, DT_F32, then));
        TRY(fetch(p, w, lo, hi - lo, &h, now + (lo - at)));
        for (int64_t i = lo - at; i < hi - at; i++) {
            double d = (double)now[i] - then[i];
            *moved += d * d;
            *donor += (double)then[i] * then[i];
        }
    }
done:
    halves_close(&h);
    free(now);
    free(then);
    return e;
}

// ---- random initial values

// SplitMix64's finaliser (Steele, Lea & Flood 2014): one well-mixed word for every counter.
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Standard normal number `index` of stream `key` (Box-Muller, 53-bit uniforms).
static float normal(uint64_t key, uint64_t index) {
    uint64_t a = mix(key ^ mix(2 * index)), b = mix(key ^ mix(2 * index + 1));
    double u = ((double)(a >> 11) + 1) * 0x1p-53, v = (double)(b >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static float initial(const part *p, const weight *w, uint64_t key, int64_t element) {
    const tensor_row *r = w->row;
    if (r->zero) return 0;
    if (r->ndim == 2) return (float)p->spec->init_range * normal(key, (uint64_t)element);
    return r->role == R_NORM1 || r->role == R_NORM2 || r->role == R_FNORM ? 1 : 0;
}

static err *random_weight(part *p, weight *w, uint64_t seed, staging *s) {
    err *e = NULL;
    uint64_t key = XXH3_64bits_withSeed(w->row->name, strlen(w->row->name), seed);
    for (int64_t at = 0; at < w->n; at += CHUNK) {
        int64_t n = w->n - at < CHUNK ? w->n - at : CHUNK;
        for (int64_t i = 0; i < n; i++) {
            int64_t row = w->s.row0 + (at + i) / w->s.cols, col = w->s.col0 + (at + i) % w->s.cols;
            s->f[i] = initial(p, w, key, row * w->row->shape[1] + col);
        }
        TRY(put(p, w, at, n, s));
    }
done:
    return e;
}

err *weights_random(part *p, uint64_t seed) {
    err *e = NULL;
    staging s = {0};
    TRY(staging_open(&s));
    for (int i = 0; i < p->weights; i++) TRY(random_weight(p, &p->weight[i], seed, &s));
done:
    staging_close(&s);
    return e;
}
