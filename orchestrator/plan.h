// The plan of a run, as a page of text: layer map, mesh, bytes per rank, work per step. Needs neither MPI nor
// memory for a model: sizes come from counting the very allocations that the worker makes.
#ifndef SOLAR_PLAN_H
#define SOLAR_PLAN_H

#include <stdbool.h>
#include <stdio.h>

#include "config.h"
#include "engine.h"

// Shape of the training part of the rank at m under a config.
err *plan_shape(const config *c, const mesh *m, part_shape *out);
// Can the plan be met on `world` ranks? Errors say why not.
err *plan_check(const config *c, const blueprint *b, int world);
// The machine that times are estimated for unless the command line names one.
const char *plan_machine(const config *c);
// Prints the plan for `world` ranks. Errors say why the plan cannot be met.
err *plan_print(FILE *out, const config *c, const blueprint *b, int world);
// As plan_print, into a string that the caller frees.
err *plan_text(const config *c, const blueprint *b, int world, char **out);
// How the config wants the layers cut into stages; borrows from it.
layout_shape plan_layout(const config *c);
// Whether the memory of devices travels from GPU to GPU on such a machine (mesh.transport).
bool plan_linked(const config *c, const char *machine);

#endif
