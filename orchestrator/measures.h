// What a step achieved: arithmetic, against what the machine could do; what was sent; what was waited for;
// memory.
#ifndef SOLAR_MEASURES_H
#define SOLAR_MEASURES_H

#include <jansson.h>

#include "../worker/step.h"
#include "config.h"
#include "spec.h"

// FLOP that a training step needs for a token, recomputation left out, by the two usual conventions: 6N + 12
// L h s, which counts all pairs of tokens in attention, and 6N + 6 L h s, which counts those of a causal
// model. N: parameters; L: layers; h: query heads x head size; s: tokens of a sequence. Sliding windows are
// not taken off.
typedef struct token_flop {
    double all_pairs, causal;
} token_flop;
token_flop token_flop_of(const model_spec *s, int64_t seq_len);

// What does not change from step to step. Rank 0's.
typedef struct measures {
    double flop; // of a step of all ranks, all pairs
    double peak; // FLOP/s of all ranks; 0: not known
    bool linked; // waiting happens on the device, where it is not seen
    device *dev; // borrowed
    int ranks;
} measures;

// The peak is that of slurm/machines.yaml: of mesh.machine, else of the GPU that there is, if it is one of
// those named there; else not known, as on a CPU. ERR_CONFIG: mesh.machine is not in that file.
err *measures_open(const config *c, const model_spec *s, const comm *comm, device *dev, measures *out);

typedef struct measure {
    double tflops;            // TFLOP/s of a rank, all pairs
    double mfu;               // share of the peak; NaN: not known
    double waiting;           // share of the step that ranks waited for others, on average; NaN: not seen
    uint64_t messages, bytes; // sent by all ranks since the step before was voted on
    size_t device_bytes;      // of rank 0's GPU, in use by anybody; 0: none
} measure;
measure measure_step(const measures *m, const step_report *r, double seconds);
// Adds it to a line of metrics.jsonl; what is not known is left out.
void measure_note(const measure *m, json_t *line);

// The machine of slurm/machines.yaml for a GPU of this name; NULL: none.
const char *machine_of_gpu(const char *name);

#endif
