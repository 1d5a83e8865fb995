// A copy of what a checkpoint holds, in host memory: what training waits for when it saves.
#ifndef SOLAR_SNAPSHOT_H
#define SOLAR_SNAPSHOT_H

#include "comm.h"
#include "save_plan.h"

// Copies this rank's pieces, as work queued so far leaves them, to pinned memory[plan->bytes]; parts of model
// tensors come from the other tensor ranks. The device's copies are queued on QUEUE_FETCH behind p->unsaved,
// which is marked here, and are there when p->saved is reached: until then neither may `memory` be read nor
// the weights and their optimizer state be changed. Collective over the tensor ranks of each stage and data
// rank.
err *snapshot_take(part *p, comm *c, const save_plan *plan, char *memory);
// `count` bytes from byte `at` of a piece, as they stand in its file: a pointer into `memory`, or to
// `buffer`, where they are put together from the tensor ranks' columns, or from how the optimizer keeps its
// state. Not collective.
const char *snapshot_bytes(const save_piece *x, int tp, size_t element, const char *memory, size_t at,
                           size_t count, char *buffer);

#endif
