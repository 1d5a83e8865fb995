// Saving beside training: a copy, a thread that writes it, and steps in between at which the ranks agree.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint.h"
#include "fsutil.h"
#include "life.h"
#include "log.h"
#include "publish.h"
#include "save_plan.h"
#include "snapshot.h"
#include "tensor_file.h"

enum { TAG_ENTRIES = 21, PATIENCE = 120 }; // seconds without a byte written that are too many at least

typedef enum save_phase { SAVE_IDLE, SAVE_WRITING, SAVE_PUBLISHING } save_phase;

struct saver {
    part *p;
    comm *c;
    save_options o;
    save_plan plan;
    char *memory;
    // the checkpoint under way
    save_phase phase;
    saved now;
    double begun;
    publication pub; // temp on every rank, the rest on rank 0
    // the thread, when there is one
    pthread_t thread;
    bool running;
    atomic_bool done;
    atomic_ullong written;
    err *failed;  // of the thread
    json_t *mine; // entries of this rank's files
};

// ---- the thread

// Best effort, last of its class: training reads its tokens first. ioprio_set(2) has no wrapper in glibc.
static void lower_io_priority(void) {
    const int who_process = 1, best_effort = 2, lowest = 7;
    syscall(SYS_ioprio_set, who_process, 0, best_effort << 13 | lowest);
}

static void start_name(const saver *s, int file, char out[80]) {
    if (file >= s->plan.model_files)
        snprintf(out, 80, "solar/optimizer-%05d-%03d.safetensors", s->p->m.rank, file - s->plan.model_files);
    else if (s->plan.all_models == 1)
        snprintf(out, 80, "model.safetensors");
    else
        snprintf(out, 80, "model-%05d-of-%05d.safetensors", s->plan.first_model + file + 1,
                 s->plan.all_models);
}

// Only below what is there: a life that is over must not come back.
static err *make_directory(const char *path) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return NULL;
    return err_errno(errno, "cannot make directory %s", path);
}

static err *write_file(saver *s, int file) {
    char name[80];
    int first = 0, count = 0;
    json_t *entry = NULL;
    while (s->plan.piece[first].file != file) first++;
    while (first + count < s->plan.pieces && s->plan.piece[first + count].file == file) count++;
    start_name(s, file, name);
    tensor_file f = {.dir = s->pub.temp,
                     .name = name,
                     .piece = s->plan.piece + first,
                     .pieces = count,
                     .tp = s->p->m.tp,
                     .memory = s->memory,
                     .written = &s->written};
    err *e = tensor_file_write(&f, &entry);
    if (!e && json_array_append_new(s->mine, entry) != 0)
        e = err_new(ERR_SYSTEM, "out of memory for the manifest");
    return e;
}

static err *write_all_files(saver *s) {
    err *e = NULL;
    char *solar = path_join(s->pub.temp, "solar");
    TRY(make_directory(s->pub.temp));
    TRY(make_directory(solar));
    for (int i = 0; i < s->plan.files; i++) TRY(write_file(s, i));
done:
    free(solar);
    return e;
}

// What went wrong below a life that is over is that it is over.
static err *explain(const saver *s, err *e) {
    err *over = e ? life_check(s->o.run_dir, s->o.life) : NULL;
    if (err_get_code(over) != ERR_RUNTIME) {
        err_free(over);
        return e;
    }
    err_free(e);
    return over;
}

// The copy goes on beside training.
static void wait_for_copy(const saver *s) {
    while (!s->p->dev->ops->reached(s->p->dev, s->p->saved))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *work(void *arg) {
    saver *s = arg;
    lower_io_priority();
    wait_for_copy(s);
    s->failed = s->phase == SAVE_WRITING ? write_all_files(s) : publish(&s->pub);
    s->failed = explain(s, s->failed);
    atomic_store(&s->done, true);
    return NULL;
}

// Signals are the main thread's.
static err *start(saver *s, save_phase phase) {
    sigset_t all, before;
    s->phase = phase;
    atomic_store(&s->done, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(&s->thread, NULL, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    s->running = why == 0;
    return why ? err_errno(why, "cannot start the thread that saves") : NULL;
}

// What the thread came to.
static err *join(saver *s) {
    if (!s->running) return NULL;
    pthread_join(s->thread, NULL);
    s->running = false;
    err *e = s->failed;
    s->failed = NULL;
    return e;
}

// ---- opening and closing

// Pages are touched now, so that the first copy is as fast as the others.
static err *take_memory(saver *s) {
    char size[32];
    if (!s->plan.bytes) return NULL;
    s->memory = mmap(NULL, s->plan.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->memory == MAP_FAILED) {
        s->memory = NULL;
        format_bytes(size, (double)s->plan.bytes);
        return err_errno(errno, "%s of host memory for saving (see `solar plan`)", size);
    }
    madvise(s->memory, s->plan.bytes, MADV_HUGEPAGE);
    memset(s->memory, 0, s->plan.bytes);
    return s->p->dev->ops->pin(s->p->dev, s->memory, s->plan.bytes);
}

err *saver_open(part *p, comm *c, const save_options *o, saver **out) {
    err *e = NULL;
    saver *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return err_new(ERR_SYSTEM, "out of memory for saving");
    *s = (saver){.p = p, .c = c, .o = *o};
    TRY(save_plan_make(p, o->file_bytes, &s->plan));
    TRY(take_memory(s));
    *out = s;
    return NULL;
done:
    saver_close(s);
    return e;
}

static void forget(saver *s) {
    free(s->pub.temp);
    free(s->pub.final);
    free(s->pub.state);
    json_decref(s->pub.written);
    json_decref(s->pub.entries);
    json_decref(s->mine);
    s->pub = (publication){0};
    s->mine = NULL;
    s->phase = SAVE_IDLE;
}

void saver_close(saver *s) {
    if (!s) return;
    err_free(join(s));
    forget(s);
    if (s->memory) {
        s->p->dev->ops->unpin(s->p->dev, s->memory);
        munmap(s->memory, s->plan.bytes);
    }
    save_plan_free(&s->plan);
    free(s);
}

bool saver_idle(const saver *s) { return s->phase == SAVE_IDLE; }
bool saver_busy(const saver *s) { return s->running && !atomic_load(&((saver *)s)->done); }
size_t saver_bytes(const saver *s) { return s->plan.bytes; }

// ---- beginning

static err *prepare(saver *s, const run_state *state) {
    char name[32];
    snprintf(name, sizeof name, "step-%08lld", (long long)state->step);
    s->pub = (publication){.o = &s->o, .table = s->p->table, .dt = s->p->shape.dt};
    s->pub.temp = path_join(s->o.life, name);
    s->pub.final = checkpoint_path(s->o.run_dir, "step-", state->step);
    s->pub.state = state_to_json(state);
    s->pub.written = publication_note(&s->p->m, s->p->shape.dt);
    s->pub.entries = json_array();
    s->mine = json_array();
    atomic_store(&s->written, 0);
    return s->pub.final && s->pub.state && s->pub.written && s->pub.entries && s->mine
               ? NULL
               : err_new(ERR_SYSTEM, "out of memory for a checkpoint");
}

// A checkpoint that came to nothing. The life is not over for it, so what was written must go.
static err *give_up(saver *s, err *e) {
    if (s->pub.temp && s->p->m.rank == 0) err_free(remove_tree(s->pub.temp));
    e = err_wrap(e, "saving the checkpoint of step %lld", (long long)s->now.step);
    forget(s);
    return e;
}

err *saver_begin(saver *s, const run_state *state) {
    err *e = NULL, *mine;
    const char *phase = s->c->phase;
    s->c->phase = "save";
    s->now = (saved){.step = state->step};
    s->begun = now_seconds();
    mine = prepare(s, state);
    TRY(snapshot_take(s->p, s->c, &s->plan, s->memory)); // what fails here is not shared: it ends the run
    s->now.stall = now_seconds() - s->begun;
    if (!mine) mine = start(s, SAVE_WRITING);
    s->phase = SAVE_WRITING;
    s->failed = err_first(s->failed, mine); // told when the ranks next agree
done:
    s->c->phase = phase;
    return e;
}

// ---- from boundary to boundary

static err *send_entries(saver *s) {
    err *e = NULL;
    char *text = json_dumps(s->mine, JSON_COMPACT);
    uint64_t bytes = text ? strlen(text) : 0;
    if (!text) return err_new(ERR_SYSTEM, "out of memory for the manifest");
    TRY(comm_put(s->c, 0, TAG_ENTRIES, &bytes, sizeof bytes));
    TRY(comm_put(s->c, 0, TAG_ENTRIES, text, bytes));
done:
    free(text);
    return e;
}

static err *take_entries(saver *s, int peer) {
    err *e = NULL;
    char *text = NULL;
    uint64_t bytes;
    TRY(comm_take(s->c, peer, TAG_ENTRIES, &bytes, sizeof bytes));
    if (!(text = malloc(bytes))) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    TRY(comm_take(s->c, peer, TAG_ENTRIES, text, bytes));
    json_t *list = json_loadb(text, bytes, 0, NULL);
    if (json_array_extend(s->pub.entries, list) != 0)
        e = err_new(ERR_SYSTEM, "out of memory for the manifest");
    json_decref(list);
done:
    free(text);
    return e;
}

// What all ranks wrote, to rank 0.
static err *collect_entries(saver *s) {
    err *e = NULL;
    if (s->p->m.rank != 0) return send_entries(s);
    if (json_array_extend(s->pub.entries, s->mine) != 0) FAIL(ERR_SYSTEM, "out of memory for the manifest");
    for (int r = 1; r < s->p->m.world; r++) TRY(take_entries(s, r));
done:
    return e;
}

static err *thread_result(saver *s) {
    err *e = join(s);
    if (!e) {
        e = s->failed; // it was never started
        s->failed = NULL;
    }
    return e;
}

static err *after_writing(saver *s) {
    err *e = NULL;
    TRY(comm_agree(s->c, thread_result(s)));
    TRY(collect_entries(s));
    TRY(comm_agree(s->c, s->p->m.rank == 0 ? start(s, SAVE_PUBLISHING) : NULL));
    s->phase = SAVE_PUBLISHING;
done:
    return e;
}

static err *after_publishing(saver *s, saved *out) {
    err *e = NULL;
    uint64_t bytes = s->pub.bytes;
    TRY(comm_agree(s->c, thread_result(s)));
    TRY(comm_broadcast(s->c, &s->c->world, &bytes, sizeof bytes, 0));
    s->now.bytes = bytes;
    s->now.published = true;
    s->now.seconds = now_seconds() - s->begun;
    *out = s->now;
    forget(s);
done:
    return e;
}

err *saver_advance(saver *s, saved *out) {
    const char *phase = s->c->phase;
    *out = (saved){.step = s->now.step};
    if (s->phase == SAVE_IDLE) return NULL;
    s->c->phase = "save";
    err *e = s->phase == SAVE_WRITING ? after_writing(s) : after_publishing(s, out);
    s->c->phase = phase;
    return e ? give_up(s, e) : NULL;
}

// ---- waiting for it

// Ranks look at each other while they wait, so that one that dies is noticed. A disk that takes nothing for
// so long is taken to be gone.
static err *wait_for_threads(saver *s) {
    err *e = NULL;
    double limit = s->c->limit > PATIENCE ? s->c->limit : PATIENCE, last = -1, since = now_seconds();
    for (;;) {
        double v[2] = {saver_busy(s), (double)atomic_load(&s->written)};
        TRY(comm_sum_world(s->c, v, 2));
        if (v[0] == 0) return NULL;
        if (v[1] > last) since = now_seconds();
        last = v[1];
        // every rank comes to this by its own clock: it is not shared
        if (s->c->limit > 0 && now_seconds() - since > limit)
            FAIL(ERR_SYSTEM,
                 "nothing has been written for %.0f s, and %.0f rank(s) are still at it: the disk hangs",
                 limit, v[0]);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
done:
    return e;
}

err *saver_finish(saver *s, saved *out) {
    err *e = NULL;
    const char *phase = s->c->phase;
    *out = (saved){.step = s->now.step};
    s->c->phase = "save";
    while (s->phase != SAVE_IDLE) {
        TRY(wait_for_threads(s));
        TRY(saver_advance(s, out));
    }
done:
    s->c->phase = phase;
    return e;
}
