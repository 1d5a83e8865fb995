// What emulate.cpp offers to the parts of the machine in other files.
#ifndef EMULATE_H
#define EMULATE_H

#include "cuda_runtime.h"

[[noreturn]] void emulated_broken(const char *what);
size_t emulated_shared(); // bytes of dynamic shared memory of the kernel that runs
// A copy in the background of the thread that runs; from nullptr: zeros.
void emulated_later(char *to, const void *from, size_t bytes);

#endif
