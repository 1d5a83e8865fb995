#include "at_once.h"

void at_once_use(device *d, queue q) {
    (void)d;
    (void)q;
}

err *at_once_event_open(device *d, event **out) {
    (void)d;
    *out = NULL;
    return NULL;
}

void at_once_event(device *d, event *e) {
    (void)d;
    (void)e;
}

bool at_once_reached(device *d, event *e) {
    (void)d;
    (void)e;
    return true;
}

void *at_once_native_queue(device *d) {
    (void)d;
    return NULL;
}

void at_once_watch(device *d, err *(*watch)(void *who, double waited), void *who) {
    (void)d;
    (void)watch;
    (void)who;
}

err *at_once_pin(device *d, void *host, size_t bytes) {
    (void)d;
    (void)host;
    (void)bytes;
    return NULL;
}

void at_once_unpin(device *d, void *host) {
    (void)d;
    (void)host;
}

void at_once_range_begin(device *d, const char *name) {
    (void)d;
    (void)name;
}

void at_once_range_end(device *d) { (void)d; }

void at_once_memory(device *d, size_t *used, size_t *total) {
    (void)d;
    *used = *total = 0;
}
