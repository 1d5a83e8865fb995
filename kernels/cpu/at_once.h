// Queues, events and host memory of a device that works at once in the host's own memory: there is nothing to
// wait for. Shared by the CPU device and the one on paper.
#ifndef SOLAR_AT_ONCE_H
#define SOLAR_AT_ONCE_H

#include "ops.h"

void at_once_use(device *d, queue q);
err *at_once_event_open(device *d, event **out);
void at_once_event(device *d, event *e); // event_close, mark, follow
bool at_once_reached(device *d, event *e);
void *at_once_native_queue(device *d);
void at_once_watch(device *d, err *(*watch)(void *who, double waited), void *who);
err *at_once_pin(device *d, void *host, size_t bytes);
void at_once_unpin(device *d, void *host);
void at_once_range_begin(device *d, const char *name);
void at_once_range_end(device *d);
void at_once_memory(device *d, size_t *used, size_t *total);

// The entries of a table of ops.
#define AT_ONCE                                                                                              \
    .use = at_once_use, .event_open = at_once_event_open, .event_close = at_once_event,                      \
    .mark = at_once_event, .follow = at_once_event, .reached = at_once_reached,                              \
    .native_queue = at_once_native_queue, .watch = at_once_watch, .pin = at_once_pin,                        \
    .unpin = at_once_unpin, .range_begin = at_once_range_begin, .range_end = at_once_range_end,              \
    .memory = at_once_memory

#endif
