#include "roll_call.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

err *roll_call(comm *c, const char *what) {
    char silent[512];
    int lowest = 0;
    bool *present = calloc((size_t)c->m.world, sizeof *present);
    if (!present) return err_new(ERR_PEER, "waited %.0f s in %s", c->limit, what);
    bool in_time = collect_answers(c, present);
    name_silent(c, present, silent, sizeof silent);
    while (!present[lowest]) lowest++;
    free(present);
    if (lowest != c->m.rank || !in_time) wait_for_the_end();
    return verdict(c, silent, what);
}
