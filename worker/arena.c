#include "arena.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { ALIGN = 64 };

const char *mem_class_name(mem_class c) {
    static const char *const name[MEM_CLASSES] = {"parameters", "gradients", "optimizer", "activations",
                                                  "workspace"};
    return name[c];
}

void arena_count(arena *a) { *a = (arena){0}; }

err *arena_open(arena *a, device *dev, const arena *counted) {
    err *e = NULL;
    *a = (arena){.dev = dev};
    for (int c = 0; c < MEM_CLASSES; c++) {
        a->size[c] = counted->used[c];
        if (!a->size[c]) continue;
        TRY(dev->ops->alloc(dev, a->size[c], (void **)&a->base[c]));
        dev->ops->zero(dev, a->base[c], a->size[c]);
    }
done:
    if (!e) return NULL;
    arena_close(a);
    char size[32];
    format_bytes(size, (double)arena_total(counted));
    return err_wrap(e, "this rank needs %s in all (see `solar plan`)", size);
}

void arena_close(arena *a) {
    for (int c = 0; c < MEM_CLASSES; c++)
        if (a->base[c]) a->dev->ops->free(a->dev, a->base[c]);
    *a = (arena){0};
}

void *arena_take(arena *a, mem_class c, size_t bytes) {
    size_t at = a->used[c];
    a->used[c] += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->dev) return NULL;
    if (a->used[c] > a->size[c]) {
        log_warn("internal error: %s arena overrun (%zu of %zu bytes): the plan is wrong", mem_class_name(c),
                 a->used[c], a->size[c]);
        abort();
    }
    return a->base[c] + at;
}

size_t arena_total(const arena *a) {
    size_t sum = 0;
    for (int c = 0; c < MEM_CLASSES; c++) sum += a->used[c];
    return sum;
}
