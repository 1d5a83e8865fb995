// RUN/timeline.txt: the last step as it was, and as it was planned: a chart of the pipeline of the first data
// and tensor rank, the share of time that every stage waited, and (p-1)/(mv+p-1) beside it.
#ifndef SOLAR_TIMELINE_LOG_H
#define SOLAR_TIMELINE_LOG_H

#include "train.h"

// Times are each rank's own, from its start of the step: ranks begin a step together, as soon as the vote on
// the one before has reached them. Collective over all ranks.
err *timeline_log(training *t);

#endif
