#include "schedule.h"

#include <stdlib.h>

typedef struct order {
    int v, micro;
} order;

static int smaller(int a, int b) { return a < b ? a : b; }

// Group after group, and within a group virtual stage after virtual stage: upwards (forward) or downwards.
static void list_groups(int groups, int interleave, int micro, order *forward, order *backward) {
    int n = 0;
    for (int g = 0; g < groups; g++) {
        int first = (int)((long long)micro * g / groups), end = (int)((long long)micro * (g + 1) / groups);
        for (int v = 0; v < interleave; v++)
            for (int i = first; i < end; i++, n++) {
                forward[n] = (order){v, i};
                backward[n] = (order){interleave - 1 - v, i};
            }
    }
}

// Forwards before the first backward.
static int warm_up(int pp, int p, int interleave, int largest_group, int total) {
    if (interleave == 1) return smaller(pp - p - 1, total);
    return smaller(2 * (pp - p - 1) + (interleave - 1) * largest_group, total);
}

static void fill(action *a, const order *forward, const order *backward, int warm, int total) {
    int f = 0, b = 0, n = 0;
    while (f < warm) a[n++] = (action){ACT_FORWARD, forward[f].micro, forward[f].v}, f++;
    while (b < total) {
        if (f < total) a[n++] = (action){ACT_FORWARD, forward[f].micro, forward[f].v}, f++;
        a[n++] = (action){ACT_BACKWARD, backward[b].micro, backward[b].v}, b++;
    }
}

err *schedule_make(int pp, int p, int interleave, int micro, action **out) {
    int total = micro * interleave, groups = micro / pp > 1 ? micro / pp : 1;
    int largest_group = (micro + groups - 1) / groups;
    action *a = malloc(sizeof *a * 2 * (size_t)total);
    order *list = malloc(sizeof *list * 2 * (size_t)total);
    *out = a;
    if (!a || !list) {
        free(a);
        free(list);
        *out = NULL;
        return err_new(ERR_SYSTEM, "out of memory for a schedule of %d micro-batches", micro);
    }
    list_groups(groups, interleave, micro, list, list + total);
    fill(a, list, list + total, warm_up(pp, p, interleave, largest_group, total), total);
    free(list);
    return NULL;
}

int schedule_in_flight(const action *a, int n, int v) {
    int now = 0, most = 0;
    for (int i = 0; i < n; i++) {
        if (a[i].v != v) continue;
        now += a[i].kind == ACT_FORWARD ? 1 : -1;
        if (now > most) most = now;
    }
    return most;
}
