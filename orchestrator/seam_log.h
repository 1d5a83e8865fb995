// The report of layers: what every layer does, with the seams marked. A line of metrics.jsonl
//   {"step", "seams": [..], "layers": [{"layer", "donor", "grad_norm", "distance", "rms", "cosine"}, ..]}
// and seam.txt of the run, the newest report as a table.
#ifndef SOLAR_SEAM_LOG_H
#define SOLAR_SEAM_LOG_H

#include "train.h"

// Collective over all ranks.
err *seam_log(training *t);

#endif
