// xxHash with the widest vectors that this processor has, where the library comes with a choice of them (the
// Makefile finds out): 55 GB/s instead of 20 from a core's cache. The sums are the same.
#ifndef SOLAR_XXH3_H
#define SOLAR_XXH3_H

#include <xxhash.h>
#ifdef SOLAR_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#endif
