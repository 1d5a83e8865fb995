#include "stream.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "stream_order.h"
#include "token_source.h"

// Steps that are ready or being read: one is used while the next is fetched.
enum { SLOTS = 2 };

typedef struct reader {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Steps are numbered from where the reader was started; step k lies in slot k % SLOTS.
    uint64_t read, taken; // steps [taken, read) are ready; taken counts the one being used
    bool stop, ended;     // ended: by `error`, or after it was delivered
    err *error;
    int32_t *rows[SLOTS];
    uint64_t position;
    int64_t row0, count, stride;
} reader;

// A stretch of positions with one blend.
typedef struct stretch {
    uint64_t at; // its first position
    deal *deal;
    uint64_t *taken; // [sources]: turns before it
} stretch;

struct stream {
    token_source *source;
    int sources;
    stretch *stretch;
    int stretches;
    uint64_t seed;
    int64_t seq_len;
    bool shuffle;
    reader reader;
};

// ---- the blend

// Takes place behind the last stretch; it does not count yet.
static err *make_stretch(stream *s, uint64_t at, const double *weight) {
    err *e = NULL;
    stretch *more = realloc(s->stretch, (size_t)(s->stretches + 1) * sizeof *more);
    if (!more) return err_new(ERR_SYSTEM, "no memory");
    s->stretch = more;
    more += s->stretches;
    *more = (stretch){.at = at, .taken = calloc((size_t)s->sources, sizeof *more->taken)};
    if (!more->taken) FAIL(ERR_SYSTEM, "no memory");
    TRY(deal_make(weight, s->sources, &more->deal));
    return NULL;
done:
    free(more->taken);
    return e;
}

err *stream_change_blend(stream *s, uint64_t at, const double *weight) {
    err *e = NULL;
    uint64_t last = s->stretches ? s->stretch[s->stretches - 1].at : 0;
    if (s->stretches && at <= last)
        FAIL(ERR_CONFIG, "the blend changes at sample %llu, expected behind its last change at %llu",
             (unsigned long long)at, (unsigned long long)last);
    TRY(make_stretch(s, at, weight));
    const stretch *before = &s->stretch[s->stretches - 1];
    if (s->stretches++) {
        memcpy(before[1].taken, before->taken, (size_t)s->sources * sizeof *before->taken);
        deal_count(before->deal, at - last, before[1].taken);
    }
done:
    return err_wrap(e, "blend from sample %llu", (unsigned long long)at);
}

static const stretch *stretch_of(const stream *s, uint64_t position) {
    int low = 0, high = s->stretches; // the last that starts at or before the position
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (s->stretch[middle].at <= position)
            low = middle;
        else
            high = middle;
    }
    return &s->stretch[low];
}

static err *open_sources(stream *s, const source_config *src, int n_src, const stream_check *check) {
    err *e = NULL;
    double *weight = calloc((size_t)n_src, sizeof *weight);
    s->source = calloc((size_t)n_src, sizeof *s->source);
    if (!weight || !s->source) FAIL(ERR_SYSTEM, "no memory");
    for (int i = 0; i < n_src; i++) weight[i] = src[i].weight;
    for (; s->sources < n_src; s->sources++)
        TRY(token_source_open(&src[s->sources], s->seq_len, check, &s->source[s->sources]));
    TRY(stream_change_blend(s, 0, weight));
done:
    free(weight);
    return e;
}

err *stream_open(const source_config *src, int n_src, int64_t seq_len, uint64_t seed, bool shuffle,
                 const stream_check *check, stream **out) {
    err *e = NULL;
    *out = NULL;
    if (n_src < 1) return err_new(ERR_CONFIG, "no source of training data; expected at least one");
    stream *s = calloc(1, sizeof *s);
    if (!s) return err_new(ERR_SYSTEM, "no memory");
    s->seed = seed;
    s->seq_len = seq_len;
    s->shuffle = shuffle;
    pthread_mutex_init(&s->reader.lock, NULL);
    pthread_cond_init(&s->reader.changed, NULL);
    TRY(open_sources(s, src, n_src, check));
    *out = s;
    s = NULL;
done:
    stream_close(s);
    return e;
}

static void find_sample(const stream *s, uint64_t position, sample_place *out) {
    uint64_t index;
    const stretch *now = stretch_of(s, position);
    deal_at(now->deal, position - now->at, &out->source, &index);
    index += now->taken[out->source];
    uint64_t windows = token_source_windows(&s->source[out->source]);
    out->pass = index / windows;
    out->window = index % windows;
    if (!s->shuffle) return;
    permutation p = permutation_make(windows, s->seed, (uint64_t)out->source, out->pass);
    out->window = permutation_at(&p, out->window);
}

err *stream_locate(const stream *s, uint64_t position, sample_place *out) {
    find_sample(s, position, out);
    out->file = tokens_path(token_source_find(&s->source[out->source], out->window, &out->token));
    return NULL;
}

uint64_t stream_windows(const stream *s, int source) { return token_source_windows(&s->source[source]); }
uint64_t stream_source_tokens(const stream *s, int source) { return s->source[source].tokens; }

static err *read_step(stream *s, uint64_t step, int32_t *rows) {
    err *e = NULL;
    const reader *r = &s->reader;
    uint64_t first = r->position + step * (uint64_t)r->stride + (uint64_t)r->row0;
    for (int64_t i = 0; i < r->count; i++) {
        sample_place at;
        find_sample(s, first + (uint64_t)i, &at);
        e = token_source_read(&s->source[at.source], at.window, rows + i * (s->seq_len + 1));
        if (e) return err_wrap(e, "training sample %llu", (unsigned long long)first + (uint64_t)i);
    }
    return NULL;
}

static void *read_ahead(void *argument) {
    stream *s = argument;
    reader *r = &s->reader;
    pthread_mutex_lock(&r->lock);
    while (!r->stop && !r->error) {
        // the slot of the step that the caller still uses is not free
        if (r->read >= (r->taken ? r->taken - 1 : 0) + SLOTS) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        uint64_t step = r->read;
        pthread_mutex_unlock(&r->lock);
        err *e = read_step(s, step, r->rows[step % SLOTS]);
        pthread_mutex_lock(&r->lock);
        r->error = e;
        r->ended = e != NULL;
        if (!e) r->read++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void stop_reader(reader *r) {
    if (r->running) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    err_free(r->error);
    for (int i = 0; i < SLOTS; i++) {
        free(r->rows[i]);
        r->rows[i] = NULL;
    }
    r->error = NULL;
    r->running = r->stop = r->ended = false;
    r->read = r->taken = 0;
}

// Signals are for the main thread, which knows what to do about them.
static int create_deaf_thread(pthread_t *thread, void *(*body)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(thread, NULL, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

err *stream_start(stream *s, uint64_t position, int64_t row0, int64_t rows, int64_t stride) {
    err *e = NULL;
    reader *r = &s->reader;
    stop_reader(r);
    if (rows < 1 || row0 < 0 || stride < 1)
        FAIL(ERR_RUNTIME, "a stream of rows %lld + %lld in steps of %lld", (long long)row0, (long long)rows,
             (long long)stride);
    for (int i = 0; i < SLOTS; i++) {
        r->rows[i] = calloc((size_t)rows * (size_t)(s->seq_len + 1), sizeof **r->rows);
        if (!r->rows[i]) FAIL(ERR_SYSTEM, "no memory for %lld samples", (long long)rows);
    }
    r->position = position;
    r->row0 = row0;
    r->count = rows;
    r->stride = stride;
    int rc = create_deaf_thread(&r->thread, read_ahead, s);
    if (rc != 0) TRY(err_errno(rc, "cannot start the reader thread"));
    r->running = true;
done:
    return e;
}

err *stream_next(stream *s, const int32_t **rows) {
    err *e = NULL;
    reader *r = &s->reader;
    *rows = NULL;
    if (!r->running) return err_new(ERR_RUNTIME, "the stream was not started");
    pthread_mutex_lock(&r->lock);
    uint64_t step = r->taken++;
    pthread_cond_broadcast(&r->changed); // the slot used until now is free
    while (r->read <= step && !r->ended) pthread_cond_wait(&r->changed, &r->lock);
    if (r->read > step) {
        *rows = r->rows[step % SLOTS];
    } else {
        e = r->error ? r->error : err_new(ERR_RUNTIME, "the stream has failed before");
        r->error = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return e;
}

void stream_close(stream *s) {
    if (!s) return;
    stop_reader(&s->reader);
    pthread_cond_destroy(&s->reader.changed);
    pthread_mutex_destroy(&s->reader.lock);
    for (int i = 0; i < s->sources; i++) token_source_close(&s->source[i]);
    free(s->source);
    for (int i = 0; i < s->stretches; i++) {
        deal_free(s->stretch[i].deal);
        free(s->stretch[i].taken);
    }
    free(s->stretch);
    free(s);
}
