// The order in which a pipeline stage works on the micro-batches of a step.
#ifndef SOLAR_SCHEDULE_H
#define SOLAR_SCHEDULE_H

#include "err.h"
#include "mesh.h"

typedef enum action_kind { ACT_FORWARD, ACT_BACKWARD } action_kind;

typedef struct action {
    action_kind kind;
    int micro;
} action;

// 1F1B (Narayanan et al. 2021, PipeDream-flush): stage p runs min(pp-p-1, micro) forwards, then one forward
// and one backward in turn, then the backwards that are left. At most pp-p micro-batches are in flight,
// backwards come in the order of the forwards. `out` gets 2*micro actions; the caller frees it.
err *schedule_1f1b(const mesh *m, int micro, action **out);

#endif
