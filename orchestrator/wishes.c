#include "wishes.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../worker/life.h"
#include "../worker/step.h"
#include "deadline.h"
#include "fsutil.h"
#include "log.h"

static const double look_every = 1, life_every = 5, retry_after = 60; // seconds
static const double assumed_bytes_per_s = 200e6; // of a checkpoint, before the first has been measured

// ---- signals: the one thing a process cannot be told otherwise

static volatile sig_atomic_t stop_signalled, save_signalled;

static void note_signal(int s) {
    if (s == SIGUSR2)
        save_signalled = 1;
    else
        stop_signalled = 1;
}

void wishes_catch_signals(void) {
    static const int list[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    struct sigaction a = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) sigaction(list[i], &a, NULL);
}

bool wishes_signalled(void) { return stop_signalled != 0; }

// ---- the clock

void wishes_open(const config *c, const char *life, bool watches, uint64_t save_bytes, wishes *w) {
    const char *source;
    char left[32];
    double now = now_seconds();
    *w = (wishes){
        .c = c, .watches = watches, .life = life, .deadline = NAN, .save_bytes = save_bytes, .saved = now};
    w->looked = w->life_looked = now;
    if (!watches) return;
    w->deadline = deadline_find(c->run.deadline, &source);
    if (isnan(w->deadline)) return;
    format_time(left, fmax(0, w->deadline - (double)time(NULL)));
    log_info("%s of time left (%s): it stops in time to save", left, source);
}

static void note_step(wishes *w, double now) {
    enum { KEPT = sizeof w->step / sizeof *w->step };
    if (w->boundary > 0) w->step[w->steps++ % KEPT] = now - w->boundary;
    w->boundary = now;
}

static double longest_step(const wishes *w) {
    double most = 0;
    for (size_t i = 0; i < sizeof w->step / sizeof *w->step; i++) most = fmax(most, w->step[i]);
    return most;
}

// Whether another step, and a save after it, would still be in time. The last save is waited for, and so is
// one that may be under way.
static bool time_is_up(const wishes *w) {
    double save = w->save > 0 ? w->save : (double)w->save_bytes / assumed_bytes_per_s;
    return !isnan(w->deadline) &&
           (double)time(NULL) + longest_step(w) + 2 * save + w->c->run.margin > w->deadline;
}

// ---- files

static bool asked_by_file(const wishes *w, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", w->c->run.dir, name);
    return access(path, F_OK) == 0;
}

static unsigned look(wishes *w, double now) {
    unsigned wanted = 0;
    if (now - w->looked < look_every) return 0;
    w->looked = now;
    if (asked_by_file(w, "SAVE")) wanted |= WANT_SAVE;
    if (asked_by_file(w, "STOP")) {
        wanted |= WANT_STOP;
        w->why = "the file STOP";
    }
    if (w->c->checkpoint.minutes > 0 && now - w->saved > 60 * w->c->checkpoint.minutes) wanted |= WANT_SAVE;
    if (w->retry > 0 && now > w->retry) wanted |= WANT_SAVE;
    return wanted;
}

static err *look_at_life(wishes *w, double now) {
    if (now - w->life_looked < life_every) return NULL;
    w->life_looked = now;
    err *e = life_check(w->c->run.dir, w->life);
    if (err_get_code(e) == ERR_RUNTIME) return e;
    err_free(e); // it cannot be told now: before anything is published it will be
    return NULL;
}

err *wishes_ask(wishes *w, unsigned *wanted) {
    double now = now_seconds();
    *wanted = (stop_signalled ? WANT_STOP : 0) | (save_signalled ? WANT_SAVE : 0);
    note_step(w, now);
    if (!w->watches) return NULL;
    w->why = stop_signalled ? "a signal" : "another rank's signal";
    *wanted |= look(w, now);
    if (time_is_up(w)) {
        *wanted |= WANT_STOP;
        w->why = "the end of its time";
    }
    return look_at_life(w, now);
}

void wishes_saved(wishes *w, double seconds) {
    w->saved = now_seconds();
    w->retry = 0;
    w->save = fmax(w->save, seconds);
}

void wishes_failed(wishes *w) { w->retry = now_seconds() + retry_after; }

static void remove_wish(const wishes *w, const char *name) {
    char *path = path_join(w->c->run.dir, name);
    if (w->watches) unlink(path);
    free(path);
}

void wishes_drop(const wishes *w, unsigned met) {
    if (met & WANT_SAVE) {
        save_signalled = 0;
        remove_wish(w, "SAVE");
    }
    if (met & WANT_STOP) remove_wish(w, "STOP");
}
