// A run is one life's at a time. The life that writes into a run directory has a directory of its own in it,
// RUN/.life/GENERATION-TOKEN, in which everything is built that it will publish. The next life removes it,
// and from then on nothing of the former can be published any more, wherever its ranks still run: what a
// rename would take is no longer there. Locks of files are not needed for this, nor clocks, and it holds on
// network file systems.
#ifndef SOLAR_LIFE_H
#define SOLAR_LIFE_H

#include "err.h"

// Begins a life: makes its directory, removes those of all former ones with what they left half done. When
// this returns, nothing of them will be published any more. ERR_RUNTIME: another life began at the same
// moment and wins. *dir: the caller frees it. One rank calls it.
err *life_begin(const char *run_dir, char **dir);
// ERR_RUNTIME when the run has been taken over; says by whom. ERR_SYSTEM: the directory is gone or cannot be
// seen, and nobody else has the run. Not collective.
err *life_check(const char *run_dir, const char *dir);

#endif
