#include "roll_call.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fsutil.h"
#include "log.h"

enum { TAG_ROLL = 30, GRACE = 10 }; // seconds that the lowest rank has to end all

bool roll_is_called(const comm *c) {
    int there = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_ROLL, c->world.comm, &there, MPI_STATUS_IGNORE);
    return there;
}

static void answer_all(const comm *c) {
    static const char here = 1;
    for (int r = 0; r < c->m.world; r++) {
        MPI_Request request;
        if (r == c->m.rank) continue;
        if (MPI_Isend(&here, 1, MPI_CHAR, r, TAG_ROLL, c->world.comm, &request) == MPI_SUCCESS)
            MPI_Request_free(&request); // small enough to leave at once
    }
}

static int take_answers(const comm *c, bool *present) {
    int count = 0;
    while (roll_is_called(c)) {
        char here;
        MPI_Status from;
        if (MPI_Recv(&here, 1, MPI_CHAR, MPI_ANY_SOURCE, TAG_ROLL, c->world.comm, &from) != MPI_SUCCESS)
            break;
        count += !present[from.MPI_SOURCE];
        present[from.MPI_SOURCE] = true;
    }
    return count;
}

// A rank that is at work and late, not stuck, gets half the limit more to come to where it can answer. False:
// all others had answered before this rank did, which was then the one that all waited for.
static bool collect_answers(const comm *c, bool *present) {
    double patience = c->limit / 2 + 1 < 30 ? c->limit / 2 + 1 : 30, start = now_seconds();
    present[c->m.rank] = true;
    int count = 1 + take_answers(c, present);
    bool late = count == c->m.world;
    answer_all(c);
    while (count < c->m.world && now_seconds() - start < patience) {
        count += take_answers(c, present);
        sched_yield();
    }
    return !late;
}

// Through signals, which a launcher sends to what it ends.
static void wait_for_the_end(void) {
    double start = now_seconds();
    while (now_seconds() - start < GRACE) usleep(100000);
}

static void name_silent(const comm *c, const bool *present, char *out, size_t size) {
    size_t at = 0;
    out[0] = 0;
    for (int r = 0; r < c->m.world && at < size; r++)
        if (!present[r])
            at += (size_t)snprintf(out + at, size - at, "%s%d (host %s)", at ? ", " : "", r, c->hosts[r]);
}

static err *verdict(const comm *c, const char *silent, const char *what) {
    if (!*silent)
        return err_new(
            ERR_PEER,
            "phase %s, step %lld: nothing came for %.0f s in %s, although all ranks answer: they are "
            "slow, or wait for each other (limits: timeout.start, timeout.step)",
            c->phase, (long long)c->step, c->limit, what);
    return err_new(
        ERR_PEER,
        "phase %s, step %lld: no answer from rank(s) %s for %.0f s: dead, stopped, unreachable or slow "
        "(limits: timeout.start, timeout.step). Waited on host %s in %s",
        c->phase, (long long)c->step, silent, c->limit, c->host, what);
}

// ---- what every rank leaves behind

static bool report_path(const comm *c, char *out, size_t size) {
    int n = snprintf(out, size, "%s/rank-%05d.txt", c->reports, c->m.rank);
    return n > 0 && (size_t)n < size;
}

// Not synced: a disk that hangs must not keep a job from ending that hangs already.
void roll_report(comm *c, const char *what, double waited, const char *why, const char *silent) {
    char path[4096], when[32];
    time_t now = time(NULL);
    struct tm utc;
    if (!c->reports || c->reported || !report_path(c, path, sizeof path)) return;
    c->reported = true;
    err_free(make_dirs(c->reports));
    FILE *f = fopen(path, "we");
    if (!f) return;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    fprintf(f, "%s rank %d of %d (data %d, pipeline %d, tensor %d), host %s, process %ld\n", when, c->m.rank,
            c->m.world, c->m.d, c->m.p, c->m.t, c->host, (long)getpid());
    fprintf(f, "phase %s, step %lld: has waited %.1f s in %s\n", c->phase, (long long)c->step, waited, what);
    fprintf(f, "reports because: %s\n", why);
    if (*silent) fprintf(f, "no answer from rank(s) %s\n", silent);
    fclose(f);
}

void roll_forget(comm *c) {
    char path[4096];
    if (!c->reported || !report_path(c, path, sizeof path)) return;
    unlink(path);
    rmdir(c->reports); // by the last of them
    c->reported = false;
}

err *roll_call(comm *c, const char *what) {
    char silent[512];
    int lowest = 0;
    double start = now_seconds();
    bool *present = calloc((size_t)c->m.world, sizeof *present);
    if (!present) return err_new(ERR_PEER, "waited %.0f s in %s", c->limit, what);
    bool in_time = collect_answers(c, present);
    name_silent(c, present, silent, sizeof silent);
    while (!present[lowest]) lowest++;
    free(present);
    roll_report(c, what, now_seconds() - start + c->limit,
                in_time ? "it waited too long, or another rank did" : "all waited for it", silent);
    if (lowest != c->m.rank || !in_time) wait_for_the_end();
    return verdict(c, silent, what);
}
