// Checkpoints: a directory that Transformers opens as it is, and beside the weights everything training
// needs.
//
//   RUN/checkpoints/step-00000010/
//     config.json, tokenizer files           as the base model's, with the scaled model's layer count
//     model.safetensors, or model-XXXXX-of-YYYYY.safetensors and model.safetensors.index.json
//     solar/optimizer-XXXXX-of-YYYYY.safetensors    NAME.exp_avg, NAME.exp_avg_sq (and NAME.master for bf16)
//     solar/state.json                       run_state
//     solar/manifest.json, solar/manifest.xxh3      size and XXH3-128 of every tensor and file; written last
//   RUN/latest -> checkpoints/step-00000010
//
// Tensors are whole and in logical coordinates: any mesh loads any checkpoint. One file has one writer. All
// is written to RUN/checkpoints/.tmp-step-..., fsynced, renamed, and `latest` moved by rename: a checkpoint
// exists whole or not at all.
#ifndef SOLAR_CHECKPOINT_H
#define SOLAR_CHECKPOINT_H

#include "comm.h"
#include "guard.h"
#include "part.h"

typedef struct run_state {
    int64_t step;
    uint64_t samples_consumed; // the one data position
    int64_t tokens;            // trained on so far, seq_len per sample
    int64_t seed;
    char *depth_plan;                         // text form
    int base_layers;                          // n
    char *data_order;                         // fingerprint of what fixes the order of samples
    char *valid_order;                        // the same of the validation samples
    double base_loss;                         // validation loss of the base model; NaN: not measured
    double scaled_loss;                       // of the scaled model before the first step; NaN: not measured
    int64_t recovered_step, recovered_tokens; // -1: not yet
    int64_t evaluated_step;                   // of the last evaluation; -1: not yet
    int64_t skipped, skipped_in_row;          // bad steps: no update was made
    guard guard;                              // sigma and window come from the config, the rest is remembered
} run_state;

void run_state_free(run_state *s); // the strings

typedef struct save_options {
    const char *run_dir;
    const char *extras_from; // model directory whose tokenizer files are copied along
    const model_spec *spec;
    int64_t keep; // newest checkpoints that stay; 0: all
} save_options;

// Writes the checkpoint of p's weights and optimizer and publishes it. On failure nothing but a removed
// temporary directory has changed, and every rank returns the same error, marked as shared (one that is not
// is this rank's alone). ERR_NUMERIC: weights or optimizer state are not finite. Collective over all ranks.
err *checkpoint_save(part *p, comm *c, const save_options *o, const run_state *s);

// Newest checkpoint of a run that verifies, as a path in *dir (caller frees), or NULL when the run has none.
// Every byte is read and checked by all ranks together; a damaged checkpoint is named on rank 0, moved aside
// as damaged-step-..., and the next older one is tried. None good: ERR_INPUT. A disk or a machine that fails
// (ERR_SYSTEM) says nothing about the checkpoint: it stays, and the error is returned. `latest` points to
// what was found. Collective over all ranks.
err *checkpoint_find(comm *c, const char *run_dir, char **dir);
// Reads DIR/solar/state.json. Not collective.
err *checkpoint_state(const char *dir, run_state *s);
// Weights, optimizer of p from DIR. Not collective.
err *checkpoint_load(part *p, const char *dir);
// Verifies rank's share (every world-th item) of DIR against its manifest. ERR_MISMATCH names the file and
// tensor. Not collective.
err *checkpoint_verify(const char *dir, int rank, int world);
// Removes what an interrupted life left behind. One rank calls it, and no other life may be running.
void checkpoint_clean(const char *run_dir);

char *state_to_json(const run_state *s); // caller frees

#endif
