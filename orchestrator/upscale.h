// Depth up-scaling on disk: a base model to a deeper one, byte for byte.
#ifndef SOLAR_UPSCALE_H
#define SOLAR_UPSCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "depth.h"
#include "err.h"

// Key in the files' metadata under which the depth plan is written, in depth_text's form.
#define DEPTH_PLAN_KEY "solar.depth_plan"

typedef struct upscale_options {
    const char *base, *out;
    depth_ask depth;
    uint64_t max_shard; // bytes of tensors in one file; a larger tensor has a file of its own
    bool progress;
} upscale_options;

typedef struct upscale_report {
    depth_plan *plan;
    int64_t parameters_before, parameters_after;
    uint64_t bytes; // of tensors written
    int files;
    double seconds;
} upscale_report;

// Writes OUT whole or not at all: into a neighbouring directory, synced, then renamed. Memory is constant.
// OUT must not exist. The report's plan is the caller's to free. Not collective.
err *upscale(const upscale_options *o, upscale_report *report);

#endif
