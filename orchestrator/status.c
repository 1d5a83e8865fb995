#include "status.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../worker/checkpoint_dir.h"
#include "config.h"
#include "fsutil.h"
#include "jsonl.h"
#include "lives.h"

enum { SPEED_WINDOW = 51, DEATHS = 2 };

static const char *text_of(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static int64_t int_of(const json_t *o, const char *key, int64_t missing) {
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : missing;
}

static bool is_event(const json_t *o, const char *name) {
    const char *event = text_of(o, "event");
    return event && strcmp(event, name) == 0;
}

// ---- metrics.jsonl

typedef struct speed {
    double seconds[SPEED_WINDOW];
    int64_t count;
    double tokens; // of one step
} speed;

static void read_number(const json_t *line, const char *key, double *out) {
    const json_t *v = json_object_get(line, key);
    if (json_is_number(v)) *out = json_number_value(v);
}

typedef struct reading {
    run_status *s;
    speed p;
} reading;

static void take_line(void *context, json_t *line) {
    reading *r = context;
    run_status *s = r->s;
    speed *p = &r->p;
    double seconds = NAN, rate = NAN;
    int64_t step = int_of(line, "step", 0);
    read_number(line, "loss", &s->loss);
    read_number(line, "valid_loss", &s->valid_loss);
    read_number(line, "base_valid_loss", &s->base_valid_loss);
    read_number(line, "seconds", &seconds);
    read_number(line, "tokens_per_s", &rate);
    if (step > s->step) s->step = step;
    s->tokens = int_of(line, "tokens", s->tokens);
    if (json_is_true(json_object_get(line, "recovered"))) s->recovered_step = step;
    if (!(seconds > 0)) return;
    p->seconds[p->count++ % SPEED_WINDOW] = seconds;
    p->tokens = seconds * rate;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void settle_speed(run_status *s, speed *p) {
    size_t n = (size_t)(p->count < SPEED_WINDOW ? p->count : SPEED_WINDOW);
    if (!n) return;
    qsort(p->seconds, n, sizeof *p->seconds, ascending);
    s->step_seconds = p->seconds[n / 2];
    s->tokens_per_s = p->tokens / s->step_seconds;
}

static err *read_metrics(const char *dir, run_status *s) {
    err *e = NULL;
    char *path = path_join(dir, "metrics.jsonl");
    reading r = {.s = s};
    TRY(jsonl_read(path, take_line, &r));
    settle_speed(s, &r.p);
done:
    free(path);
    return e;
}

// ---- config.yaml, checkpoints

static err *read_budget(const char *dir, run_status *s) {
    err *e = NULL;
    char *path = path_join(dir, "config.yaml");
    config *c = NULL;
    if (!path_exists(path)) goto done;
    TRY(config_load(path, NULL, 0, false, &c));
    s->steps = c->train.steps;
    s->all_tokens = c->train.steps * c->train.global_batch * c->data.seq_len;
done:
    config_free(c);
    free(path);
    return e;
}

static err *read_checkpoints(const char *dir, run_status *s) {
    int64_t *steps = NULL;
    int count = 0;
    struct stat st;
    err *e = checkpoint_list(dir, &steps, &count);
    if (e || !count) return e;
    s->checkpoint = steps[0];
    char *path = checkpoint_path(dir, "step-", steps[0]),
         *state = path ? path_join(path, "solar/state.json") : NULL;
    if (state && stat(state, &st) == 0) s->checkpoint_time = (double)st.st_mtime;
    if (s->step < s->checkpoint) s->step = s->checkpoint;
    free(state);
    free(path);
    free(steps);
    return NULL;
}

// ---- lives.jsonl

// Does a process hold the lock of the run? -1: this file system does not say.
static int lock_is_held(const char *dir) {
    char *path = path_join(dir, "lock");
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int held = fd < 0 || fcntl(fd, F_OFD_GETLK, &whole) != 0 ? -1 : whole.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    free(path);
    return held;
}

static const json_t *last_of(const run_status *s, const char *event) {
    for (size_t i = json_array_size(s->events); i-- > 0;) {
        const json_t *o = json_array_get(s->events, i);
        if (is_event(o, event)) return o;
    }
    return NULL;
}

static run_phase phase_of(const char *dir, const run_status *s) {
    const json_t *end = last_of(s, "end");
    bool ended = end && int_of(end, "life", -1) == s->lives;
    int held = lock_is_held(dir);
    if (held == 1) return RUN_GOING;
    if (!ended) return !s->lives ? RUN_EMPTY : held == 0 ? RUN_KILLED : RUN_GOING;
    int64_t code = int_of(end, "code", 1);
    return code == 0 ? RUN_DONE : code == ERR_RESUME ? RUN_STOPPED : RUN_FAILED;
}

// Lives of the last job that began with the newest checkpoint of now, without a gap. A job submitted anew
// starts from none.
static int64_t idle_lives(const run_status *s) {
    int64_t idle = 0, now = s->checkpoint < 0 ? 0 : s->checkpoint;
    const char *job = NULL;
    for (size_t i = json_array_size(s->events); i-- > 0;) {
        const json_t *o = json_array_get(s->events, i);
        if (!is_event(o, "job")) continue;
        const char *of = text_of(o, "job");
        if (!of) of = "";
        if (int_of(o, "checkpoint", -1) != now || (job && strcmp(job, of) != 0)) break;
        job = of;
        idle++;
    }
    return idle;
}

static err *read_lives(const char *dir, run_status *s) {
    err *e = NULL;
    size_t i;
    json_t *o;
    TRY(lives_read(dir, &s->events));
    json_array_foreach(s->events, i, o) {
        int64_t life = int_of(o, "life", 0);
        if (life > s->lives) s->lives = life;
    }
    s->phase = phase_of(dir, s);
    s->idle = idle_lives(s);
done:
    return e;
}

err *status_read(const char *dir, run_status *out) {
    err *e = NULL;
    *out = (run_status){.loss = NAN,
                        .valid_loss = NAN,
                        .base_valid_loss = NAN,
                        .step_seconds = NAN,
                        .tokens_per_s = NAN,
                        .recovered_step = -1,
                        .checkpoint = -1,
                        .checkpoint_time = NAN};
    if (!is_dir(dir)) FAIL(ERR_INPUT, "%s is not a directory: expected the run.dir of a run", dir);
    TRY(read_budget(dir, out));
    TRY(read_metrics(dir, out));
    TRY(read_checkpoints(dir, out));
    TRY(read_lives(dir, out));
    if (!out->steps && !json_array_size(out->events))
        FAIL(ERR_INPUT, "%s holds neither config.yaml nor lives.jsonl: expected the run.dir of a run", dir);
done:
    if (e) status_free(out);
    return e;
}

void status_free(run_status *s) {
    json_decref(s->events);
    s->events = NULL;
}

const char *status_phase(run_phase p) {
    static const char *const words[] = {"not begun", "running", "done", "stopped, to be run again",
                                        "failed",    "killed"};
    return words[p];
}

// ---- what follows from the events

static void blame(json_t *deaths, json_t *out, const json_t *o) {
    const char *node = text_of(o, "node"), *why = text_of(o, "why");
    char reason[256];
    if (!node) return;
    if (is_event(o, "fit")) {
        json_object_del(deaths, node);
        json_object_del(out, node);
    } else if (is_event(o, "unfit")) {
        snprintf(reason, sizeof reason, "unfit: %s", why ? why : "?");
        json_object_set_new(out, node, json_string(reason));
    } else if (is_event(o, "death")) {
        int64_t n = int_of(deaths, node, 0) + 1;
        json_object_set_new(deaths, node, json_integer((json_int_t)n));
        snprintf(reason, sizeof reason, "died %lld times, last: %s", (long long)n, why ? why : "?");
        if (n >= DEATHS) json_object_set_new(out, node, json_string(reason));
    }
}

json_t *status_left_out(const run_status *s) {
    json_t *deaths = json_object(), *out = json_object(), *o;
    size_t i;
    json_array_foreach(s->events, i, o) blame(deaths, out, o);
    json_decref(deaths);
    return out;
}

static json_t *life_at(json_t *list, int64_t life) {
    size_t i;
    json_t *o;
    json_array_foreach(list, i, o) if (int_of(o, "life", -1) == life) return o;
    o = json_pack("{s:I}", "life", (json_int_t)life);
    json_array_append_new(list, o);
    return o;
}

static void copy_key(json_t *to, const char *name, const json_t *from, const char *key) {
    json_t *v = json_object_get(from, key);
    if (v) json_object_set(to, name, v);
}

json_t *status_lives(const run_status *s) {
    json_t *list = json_array(), *o;
    size_t i;
    json_array_foreach(s->events, i, o) {
        int64_t n = int_of(o, "life", 0);
        if (n < 1) continue;
        json_t *life = life_at(list, n);
        if (is_event(o, "begin")) {
            copy_key(life, "begin", o, "time");
            copy_key(life, "from", o, "step");
            copy_key(life, "ranks", o, "ranks");
            copy_key(life, "job", o, "job");
            copy_key(life, "nodes", o, json_object_get(o, "nodes") ? "nodes" : "host");
        }
        if (is_event(o, "step")) copy_key(life, "first_step", o, "time");
        if (is_event(o, "save")) copy_key(life, "saved", o, "step");
        if (is_event(o, "end")) {
            copy_key(life, "end", o, "time");
            copy_key(life, "to", o, "step");
            copy_key(life, "code", o, "code");
            copy_key(life, "why", o, "why");
        }
    }
    return list;
}
