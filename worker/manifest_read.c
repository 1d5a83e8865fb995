// Reading and checking what a manifest describes, range by range, several threads at a time.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsutil.h"
#include "manifest.h"
#include "xxh3.h"

enum { MOST_OPEN = 200, PORTION = 256 << 10 }; // files at a time; bytes

static void close_all(manifest *m) {
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].fd >= 0) close(m->file[i].fd);
        m->file[i].fd = -1;
    }
}

static err *open_file(manifest_file *f) {
    uint64_t bytes;
    if (f->fd >= 0) return NULL;
    err *e = open_input(f->path, &f->fd, &bytes);
    if (!e && bytes != f->bytes)
        e = err_new(ERR_MISMATCH, "%s has %llu bytes, the manifest says %llu", f->path,
                    (unsigned long long)bytes, (unsigned long long)f->bytes);
    return e;
}

typedef struct range_reader { // one thread's
    char *data;               // [PORTION]
    XXH3_state_t *sum;
    const range_use *use;
} range_reader;

static size_t range_bytes(const range *r) {
    return r->in->bytes - r->at < RANGE ? (size_t)(r->in->bytes - r->at) : RANGE;
}

static err *damaged(const manifest_file *f, const range *r, const char *sum) {
    uint64_t first = r->in->offset + r->at;
    return err_new(ERR_MISMATCH,
                   "%s is damaged: bytes %llu to %llu of %s have checksum %s, the manifest says %.32s",
                   f->path, (unsigned long long)first, (unsigned long long)(first + range_bytes(r) - 1),
                   r->in->what, sum, r->in->sums + r->at / RANGE * 32);
}

// In portions that stay in a core's cache from the disk to where they go. They are handed on before the range
// is known to be whole: who loads a damaged checkpoint throws all of it away.
static err *read_range(const manifest *m, const range *r, range_reader *reader) {
    const manifest_file *f = &m->file[r->in->file];
    size_t bytes = range_bytes(r);
    const range_use *use = reader->use;
    char sum[33];
    XXH3_128bits_reset(reader->sum);
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < PORTION ? bytes - at : PORTION;
        char *place = use->place ? use->place(use->context, r, at, n) : NULL;
        char *data = place ? place : reader->data;
        err *e = pread_all(f->fd, data, n, r->in->offset + r->at + at, f->path);
        if (e) return e;
        XXH3_128bits_update(reader->sum, data, n);
        if (use->take && !place) use->take(use->context, r, at, data, n);
    }
    XXH128_hash_t h = XXH3_128bits_digest(reader->sum);
    snprintf(sum, sizeof sum, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    return memcmp(sum, r->in->sums + r->at / RANGE * 32, 32) == 0 ? NULL : damaged(f, r, sum);
}

// The ranges list[0..n-1], whose files are open.
static err *read_batch(const manifest *m, const range *list, int64_t n, int threads, const range_use *use) {
    err *e = NULL;
    // NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): num_threads reads it
    int team = n >= threads ? threads : n > 0 ? (int)n : 1;
#pragma omp parallel num_threads(team)
    {
        range_reader r = {.data = malloc(PORTION), .sum = XXH3_createState(), .use = use};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n; i++) {
            err *mine = r.data && r.sum ? read_range(m, &list[i], &r)
                                        : err_new(ERR_SYSTEM, "out of memory for reading");
            if (!mine) continue;
#pragma omp critical
            e = err_first(e, mine);
        }
        free(r.data);
        XXH3_freeState(r.sum);
    }
    return e;
}

err *manifest_read(manifest *m, const range *list, int64_t n, int threads, const range_use *use) {
    err *e = NULL;
    for (int64_t done = 0, end; !e && done < n; done = end) {
        int opened = 0;
        for (end = done; !e && end < n && opened < MOST_OPEN; end++) {
            manifest_file *f = &m->file[list[end].in->file];
            opened += f->fd < 0;
            e = open_file(f);
        }
        if (!e) e = read_batch(m, list + done, end - done, threads, use);
        if (e || end < n || opened >= MOST_OPEN / 2) close_all(m);
    }
    return e;
}

static int64_t add_ranges(const region *in, range *list, int64_t n) {
    for (uint64_t at = 0; at < in->bytes; at += RANGE, n++)
        if (list) list[n] = (range){in, at};
    return n;
}

static int64_t list_all(const manifest *m, unsigned what, range *list) {
    int64_t n = 0;
    for (int i = 0; what & CHECK_PAPERS && i < m->papers; i++) n = add_ranges(&m->paper[i], list, n);
    for (int i = 0; what & CHECK_TENSORS && i < m->tensors; i++) n = add_ranges(&m->tensor[i].in, list, n);
    return n;
}

static int by_place(const void *a, const void *b) {
    const range *x = a, *y = b;
    if (x->in->file != y->in->file) return x->in->file < y->in->file ? -1 : 1;
    uint64_t p = x->in->offset + x->at, q = y->in->offset + y->at;
    return (p > q) - (p < q);
}

// Files without a byte to check still have to be there.
static err *check_sizes(manifest *m, int rank, int world) {
    err *e = NULL;
    for (int i = rank; !e && i < m->files; i += world) {
        bool was_open = m->file[i].fd >= 0;
        e = open_file(&m->file[i]);
        if (!was_open && m->file[i].fd >= 0) {
            close(m->file[i].fd);
            m->file[i].fd = -1;
        }
    }
    return e;
}

err *manifest_check(manifest *m, unsigned what, int rank, int world, int threads, uint64_t *checked) {
    err *e = NULL;
    int64_t n = list_all(m, what, NULL), mine = 0;
    range *list = malloc(((size_t)n + 1) * sizeof *list);
    if (!list) FAIL(ERR_SYSTEM, "out of memory for checking a checkpoint");
    list_all(m, what, list);
    for (int64_t i = rank; i < n; i += world) list[mine++] = list[i];
    qsort(list, (size_t)mine, sizeof *list, by_place);
    for (int64_t i = 0; checked && i < mine; i++) *checked += range_bytes(&list[i]);
    TRY(check_sizes(m, rank, world));
    TRY(manifest_read(m, list, mine, threads, &(range_use){.take = NULL}));
done:
    free(list);
    return e;
}
