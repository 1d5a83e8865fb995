#include "encode.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

// Text a job: much work for one lock, little enough that a small file keeps all threads busy.
enum { JOB_BYTES = 1 << 17, JOB_RECORDS = 256 };

typedef enum job_state { JOB_FREE, JOB_READ, JOB_TAKEN, JOB_DONE } job_state;

typedef struct job {
    job_state state;
    bool last;
    // in
    char *raw;
    size_t raw_bytes, raw_capacity;
    text_record record[JOB_RECORDS]; // data: offset into raw, until the job is read
    int records;
    // out
    ids ids;
    encoded document[JOB_RECORDS]; // id: set when taken, ids may move until then
    int documents;
    text_counts counts;
    err *error; // behind the documents that are there
} job;

struct encoder {
    encode_options options;
    text_input *in;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    uint64_t next_encode; // jobs are numbered; job k lies in slot k % slots
    job *job;
    int slots;
    pthread_t *thread; // the reader, then the encoders
    int threads;
    // the caller's place
    job *now; // NULL before the first
    uint64_t current;
    int taken;
    bool ended;
    text_counts counts;
};

uint64_t document_hash(uint64_t seed, const char *text, size_t bytes) {
    return XXH3_64bits_withSeed(text, bytes, seed);
}

// ---- the reader

static err *keep(job *j, const text_record *r) {
    if (j->raw_capacity - j->raw_bytes <= r->bytes) {
        size_t capacity = j->raw_bytes + r->bytes + JOB_BYTES;
        char *grown = realloc(j->raw, capacity);
        if (!grown) return err_new(ERR_SYSTEM, "no memory for %zu bytes of text", capacity);
        j->raw = grown;
        j->raw_capacity = capacity;
    }
    memcpy(j->raw + j->raw_bytes, r->data, r->bytes);
    j->record[j->records++] = *r;
    j->raw_bytes += r->bytes;
    return NULL;
}

static void read_job(text_input *in, job *j) {
    j->raw_bytes = 0;
    j->records = 0;
    j->last = false;
    while (j->records < JOB_RECORDS && j->raw_bytes < JOB_BYTES && !j->last && !j->error) {
        text_record r;
        j->error = text_read(in, &r, &j->last);
        if (!j->error && !j->last) j->error = keep(j, &r);
    }
    const char *data = j->raw;
    for (int i = 0; i < j->records; data += j->record[i++].bytes) j->record[i].data = data;
}

// Waits until a job's slot is in a state; false: told to stop.
static bool wait_for(encoder *p, const job *j, job_state state) {
    while (!p->stop && j->state != state) pthread_cond_wait(&p->changed, &p->lock);
    return !p->stop;
}

static void set_state(encoder *p, job *j, job_state state) {
    j->state = state;
    pthread_cond_broadcast(&p->changed);
}

static void *run_reader(void *argument) {
    encoder *p = argument;
    bool over = false;
    pthread_mutex_lock(&p->lock);
    for (uint64_t k = 0; !over; k++) {
        job *j = &p->job[k % (uint64_t)p->slots];
        if (!wait_for(p, j, JOB_FREE)) break;
        pthread_mutex_unlock(&p->lock);
        read_job(p->in, j);
        over = j->last || j->error;
        pthread_mutex_lock(&p->lock);
        set_state(p, j, JOB_READ);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

// ---- the encoders

static err *append(ids *v, int32_t id) {
    if (v->count == v->capacity) {
        size_t capacity = 2 * v->capacity + 1024;
        int32_t *grown = realloc(v->id, capacity * sizeof *grown);
        if (!grown) return err_new(ERR_SYSTEM, "no memory for %zu tokens", capacity);
        v->id = grown;
        v->capacity = capacity;
    }
    v->id[v->count++] = id;
    return NULL;
}

static err *encode_text(const encode_options *o, job *j, const char *text, size_t bytes) {
    err *e = NULL;
    size_t before = j->ids.count;
    if (o->bos) TRY(append(&j->ids, tokenizer_bos(o->tokenizer)));
    TRY(tokenizer_encode(o->tokenizer, text, bytes, &j->ids));
    if (o->eos) TRY(append(&j->ids, tokenizer_eos(o->tokenizer)));
    j->document[j->documents++] = (encoded){
        .count = j->ids.count - before, .hash = document_hash(o->seed, text, bytes), .bytes = bytes};
done:
    return e;
}

static void encode_job(const encode_options *o, text_decoder *d, job *j) {
    err *e = NULL;
    j->ids.count = 0;
    j->documents = 0;
    d->counts = (text_counts){0};
    for (int i = 0; i < j->records && !e; i++) {
        const char *text;
        size_t bytes;
        e = text_decode(d, &j->record[i], &text, &bytes);
        if (!e && text)
            e = err_wrap(encode_text(o, j, text, bytes), "%s:%llu", j->record[i].file,
                         (unsigned long long)j->record[i].line);
    }
    j->counts = d->counts;
    j->error = err_first(e, j->error); // the reader's came behind all records
}

static void *run_encoder(void *argument) {
    encoder *p = argument;
    text_decoder d = {.options = p->options.text};
    pthread_mutex_lock(&p->lock);
    for (;;) {
        job *j = &p->job[p->next_encode % (uint64_t)p->slots];
        if (p->stop) break;
        if (j->state != JOB_READ) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        p->next_encode++;
        j->state = JOB_TAKEN;
        pthread_mutex_unlock(&p->lock);
        encode_job(&p->options, &d, j);
        pthread_mutex_lock(&p->lock);
        set_state(p, j, JOB_DONE);
    }
    pthread_mutex_unlock(&p->lock);
    text_decoder_clear(&d);
    return NULL;
}

// ---- the caller

err *encode_open(text_input *in, const encode_options *options, encoder **out) {
    err *e = NULL;
    *out = NULL;
    encoder *p = calloc(1, sizeof *p);
    if (!p) return err_new(ERR_SYSTEM, "no memory");
    p->options = *options;
    p->in = in;
    p->slots = 3 * options->threads + 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->job = calloc((size_t)p->slots, sizeof *p->job);
    p->thread = calloc((size_t)options->threads + 1, sizeof *p->thread);
    if (!p->job || !p->thread) FAIL(ERR_SYSTEM, "no memory");
    for (; p->threads <= options->threads; p->threads++) {
        int rc = pthread_create(&p->thread[p->threads], NULL, p->threads ? run_encoder : run_reader, p);
        if (rc != 0) TRY(err_errno(rc, "cannot start thread %d", p->threads));
    }
    *out = p;
    p = NULL;
done:
    encode_close(p);
    return e;
}

static void add_counts(text_counts *sum, const text_counts *more) {
    sum->documents += more->documents;
    sum->bytes += more->bytes;
    sum->empty += more->empty;
    sum->broken += more->broken;
    sum->invalid_utf8 += more->invalid_utf8;
}

static void start_job(job *j) {
    const int32_t *id = j->ids.id;
    for (int i = 0; i < j->documents; id += j->document[i++].count) j->document[i].id = id;
}

// Gives the present job back and waits for the next.
static void next_job(encoder *p) {
    pthread_mutex_lock(&p->lock);
    if (p->now) {
        set_state(p, p->now, JOB_FREE);
        p->current++;
    }
    p->now = &p->job[p->current % (uint64_t)p->slots];
    wait_for(p, p->now, JOB_DONE);
    pthread_mutex_unlock(&p->lock);
    p->taken = 0;
    add_counts(&p->counts, &p->now->counts);
    start_job(p->now);
}

err *encode_next(encoder *p, encoded *out, bool *end) {
    err *e = NULL;
    while (!p->ended) {
        const job *j = p->now;
        if (j && p->taken < j->documents) {
            *out = j->document[p->taken++];
            break;
        }
        if (j && (j->error || j->last)) {
            e = j->error;
            p->now->error = NULL;
            p->ended = true;
            break;
        }
        next_job(p);
    }
    *end = p->ended;
    return e;
}

text_counts encode_counts(const encoder *p) { return p->counts; }

void encode_close(encoder *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->threads; i++) pthread_join(p->thread[i], NULL);
    for (int i = 0; p->job && i < p->slots; i++) {
        free(p->job[i].raw);
        ids_free(&p->job[i].ids);
        err_free(p->job[i].error);
    }
    free(p->job);
    free(p->thread);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
