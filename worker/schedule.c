#include "schedule.h"

#include <stdlib.h>

err *schedule_1f1b(const mesh *m, int micro, action **out) {
    action *a = malloc(sizeof *a * 2 * (size_t)micro);
    *out = a;
    if (!a) return err_new(ERR_SYSTEM, "out of memory for a schedule of %d micro-batches", micro);
    int warm = m->pp - m->p - 1 < micro ? m->pp - m->p - 1 : micro;
    int f = 0, b = 0, n = 0;
    while (f < warm) a[n++] = (action){ACT_FORWARD, f++};
    while (f < micro) {
        a[n++] = (action){ACT_FORWARD, f++};
        a[n++] = (action){ACT_BACKWARD, b++};
    }
    while (b < micro) a[n++] = (action){ACT_BACKWARD, b++};
    return NULL;
}
