#include "arena.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { ALIGN = 64 };

const char *mem_class_name(mem_class c) {
    static const char *const name[MEM_CLASSES] = {"parameters",  "gradients", "optimizer",
                                                  "activations", "workspace", "host"};
    return name[c];
}

void arena_count(arena *a) { *a = (arena){0}; }

// Host memory that the device may copy from and to by itself; on paper an address.
static err *open_host(arena *a, size_t bytes) {
    const uintptr_t paper = (uintptr_t)1 << 45;
    if (a->dev->ops->imaginary) {
        a->base[MEM_HOST] = (char *)paper; // NOLINT(performance-no-int-to-ptr): never read
        return NULL;
    }
    a->base[MEM_HOST] = aligned_alloc(ALIGN, bytes);
    if (!a->base[MEM_HOST]) return err_new(ERR_SYSTEM, "no host memory for %zu bytes", bytes);
    memset(a->base[MEM_HOST], 0, bytes);
    return a->dev->ops->pin(a->dev, a->base[MEM_HOST], bytes);
}

static void close_host(arena *a) {
    if (!a->base[MEM_HOST] || a->dev->ops->imaginary) return;
    a->dev->ops->unpin(a->dev, a->base[MEM_HOST]);
    free(a->base[MEM_HOST]);
}

err *arena_open(arena *a, device *dev, const arena *counted) {
    err *e = NULL;
    *a = (arena){.dev = dev};
    for (int c = 0; c < MEM_CLASSES; c++) {
        a->size[c] = counted->used[c];
        if (!a->size[c]) continue;
        if (c == MEM_HOST) {
            TRY(open_host(a, a->size[c]));
            continue;
        }
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
    for (int c = 0; c < MEM_HOST; c++)
        if (a->base[c]) a->dev->ops->free(a->dev, a->base[c]);
    close_host(a);
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
    for (int c = 0; c < MEM_HOST; c++) sum += a->used[c];
    return sum;
}
