// Proof, byte for byte, that a scaled model is its base model deepened.
#ifndef SOLAR_VERIFY_H
#define SOLAR_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "model_dir.h"

typedef enum plan_source { PLAN_GIVEN, PLAN_STATED, PLAN_FOUND } plan_source;

typedef struct verify_options {
    const char *base, *out;
    depth_ask depth;
    bool progress;
} verify_options;

typedef struct difference {
    char tensor[80], donor[80];
    uint64_t byte; // the first that differs, from the start of the tensor
    char what[96]; // "" for a byte, else what differs: dtype
} difference;

enum { MOST_DIFFERENCES = 20 };

typedef struct verify_report {
    depth_plan *plan;   // NULL when the models could not be set against each other
    plan_source source; // an option, OUT's own metadata, or found by comparing
    int tensors, different;
    uint64_t bytes; // compared
    difference first[MOST_DIFFERENCES];
    double seconds;
} verify_report;

// Compares the architecture, and every tensor of OUT with its donor. Any difference: ERR_MISMATCH that names
// it, and the report lists the tensors. The report's plan is the caller's to free, also after an error.
// Not collective.
err *verify(const verify_options *o, verify_report *report);

// The plan that OUT was most likely made by. Each layer gets the base layer that the most
// of its tensors equal (by hash; equals are settled in favour of going on from the layer before). The caller
// still has to prove it. Not collective.
err *find_plan(const model_dir *base, const model_dir *out, depth_plan **plan);

#endif
