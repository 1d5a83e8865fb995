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
// Writes c->reports/rank-NNNNN.txt: who and where this rank is, its phase and step, what it has waited for
// and for how long, why it says so, and who does not answer (""), as far as it knows. Each rank writes its
// own, once.
void roll_report(comm *c, const char *what, double waited, const char *why, const char *silent);
void roll_forget(comm *c); // removes it again: the job was not stuck

#endif
