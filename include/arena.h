// All large memory of a rank. The same building code runs twice: against a counting arena, which gives
// the plan to the byte, and against a real one, which holds exactly that. What is planned is what is
// allocated, by construction.
#ifndef SOLAR_ARENA_H
#define SOLAR_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "ops.h"

typedef enum mem_class {
    MEM_PARAM,
    MEM_GRAD,
    MEM_OPTIM,
    MEM_ACT,
    MEM_WORK,
    MEM_HOST, // in the host's memory, which the device copies from and to: moments that are offloaded
    MEM_CLASSES,
} mem_class;

const char *mem_class_name(mem_class c); // "parameters", "gradients", ...

typedef struct arena {
    device *dev;              // NULL: counting only
    char *base[MEM_CLASSES];  // one block a class, so that gradients are one contiguous range
    size_t size[MEM_CLASSES]; // real arena: capacity
    size_t used[MEM_CLASSES];
} arena;

void arena_count(arena *a); // makes a counting arena
// Allocates blocks of the sizes that a counting arena found.
err *arena_open(arena *a, device *dev, const arena *counted);
void arena_close(arena *a);
// Next 64-byte aligned piece of a class; NULL from a counting arena. Running past what was counted is
// a bug and aborts.
void *arena_take(arena *a, mem_class c, size_t bytes);
size_t arena_total(const arena *a); // of the device, without MEM_HOST

#endif
