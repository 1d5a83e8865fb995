#include "slow.h"

#include <stdlib.h>
#include <string.h>

err *slow_open(int world, slow_watch *out) {
    *out = (slow_watch){.world = world, .busy = calloc((size_t)world, sizeof *out->busy)};
    return out->busy ? NULL : err_new(ERR_SYSTEM, "out of memory for the times of %d ranks", world);
}

void slow_close(slow_watch *w) {
    free(w->busy);
    *w = (slow_watch){0};
}

void slow_note(slow_watch *w, const step_vote *votes) {
    w->steps++;
    for (int r = 0; r < w->world; r++)
        for (int k = 0; k < PHASES; k++) w->busy[r][k] += votes[r].busy[k];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double total(const double busy[PHASES]) {
    double sum = 0;
    for (int k = 0; k < PHASES; k++) sum += k == PHASE_DATA ? 0 : busy[k]; // not every rank reads samples
    return sum;
}

// Median over the peers of rank (p, d, t): of one phase, or of all when phase is PHASES. The lower of two.
static double median(const slow_watch *w, const mesh *m, int p, int rank, int phase) {
    double list[m->dp * m->tp];
    int n = 0;
    for (int d = 0; d < m->dp; d++)
        for (int t = 0; t < m->tp; t++) {
            int peer = mesh_rank(m, d, p, t);
            if (peer != rank) list[n++] = phase == PHASES ? total(w->busy[peer]) : w->busy[peer][phase];
        }
    qsort(list, (size_t)n, sizeof *list, by_value);
    return list[(n - 1) / 2];
}

static void name_phase(const slow_watch *w, const mesh *m, int p, slow_rank *s) {
    double most = 0;
    for (int k = 0; k < PHASES; k++) {
        double mine = w->busy[s->rank][k], theirs = median(w, m, p, s->rank, k);
        if (k == PHASE_DATA || mine - theirs <= most) continue;
        most = mine - theirs;
        s->phase = (step_phase)k;
        s->seconds = mine / w->steps;
        s->median = theirs / w->steps;
    }
}

slow_rank slow_find(slow_watch *w, const mesh *m, double factor) {
    slow_rank worst = {.rank = -1, .times = factor};
    int stage = 0;
    for (int p = 0; p < m->pp && m->dp * m->tp > 1 && factor > 0 && w->steps; p++)
        for (int i = 0; i < m->dp * m->tp; i++) {
            int rank = mesh_rank(m, i / m->tp, p, i % m->tp);
            double theirs = median(w, m, p, rank, PHASES), times = total(w->busy[rank]) / theirs;
            if (!(theirs > 0) || !(times > worst.times)) continue;
            worst = (slow_rank){.rank = rank, .times = times};
            stage = p;
        }
    if (worst.rank >= 0) name_phase(w, m, stage, &worst);
    memset(w->busy, 0, (size_t)w->world * sizeof *w->busy);
    w->steps = 0;
    return worst;
}
