// Who is missing? When a rank has waited too long, the one it waits for is often waiting itself. So every
// rank that waits tells all others that it is there, and whoever says nothing is what all are waiting for.
#ifndef SOLAR_ROLL_CALL_H
#define SOLAR_ROLL_CALL_H

#include "comm.h"

// Has another rank called the roll?
bool roll_is_called(const comm *c);
// Calls or answers the roll and returns an ERR_PEER naming the ranks and hosts that did not answer, and what
// this rank waited for. The lowest rank that is there returns first, so that one message reaches the user;
// the others follow some seconds later, in case it cannot end them.
err *roll_call(comm *c, const char *what);

#endif
