// Checkpoints: a directory that Transformers opens as it is, and beside the weights everything training
// needs.
//
//   RUN/checkpoints/step-00000010/
//     config.json, tokenizer files           as the base model's, with the scaled model's layer count
//     model.safetensors, or model-XXXXX-of-YYYYY.safetensors and model.safetensors.index.json
//     solar/optimizer-RANK-FILE.safetensors  NAME.exp_avg, NAME.exp_avg_sq (and NAME.master for bf16), or
//                                            pieces of them; all F32 (optim.h)
//     solar/state.json                       run_state
//     solar/manifest.json, manifest.xxh3     what lies where, and a sum of every range; written last
//   RUN/latest -> checkpoints/step-00000010
//   RUN/.life/GENERATION-TOKEN/              what the running life is writing (life.h)
//
// Weights are whole tensors, optimizer state is in logical coordinates: any mesh loads any checkpoint. One
// file has one writer. Saving: every rank copies its share into host memory (what training waits for;
// from a GPU the next update does, if the copy takes longer than the step); a thread writes it, sums it,
// syncs it; when all have, rank 0 gathers what they wrote, and its thread writes the manifest, syncs the
// directories, makes sure that the run is still this life's, renames the directory and moves `latest` by
// rename: a checkpoint exists whole or not at all.
#ifndef SOLAR_CHECKPOINT_H
#define SOLAR_CHECKPOINT_H

#include "checkpoint_dir.h"
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
    double valid_loss;                        // of that evaluation; NaN: not yet
    char config_xxh3[33];                     // sum of the resolved config without run.dir; "": not known
    int64_t skipped, skipped_in_row;          // bad steps: no update was made
    guard guard;                              // sigma and window come from the config, the rest is remembered
} run_state;

void run_state_free(run_state *s); // the strings

typedef struct save_options {
    const char *run_dir;
    const char *life;        // this life's directory
    const char *extras_from; // model directory whose tokenizer files are copied along
    const model_spec *spec;
    retention keep;
    int64_t file_bytes; // no file grows larger than this by another tensor
} save_options;

// ---- saving. At most one checkpoint is under way.
typedef struct saver saver;
typedef struct saved { // of the last one that was begun
    int64_t step;
    bool published;
    double stall, seconds; // that training waited for the copy; from then until `latest` was moved
    uint64_t bytes;        // of all ranks
} saved;

// Takes the host memory for the copy. o is copied, what it points to is borrowed. Not collective.
err *saver_open(part *p, comm *c, const save_options *o, saver **out);
void saver_close(saver *s); // waits for its thread; what is not published is left to the next life to remove
bool saver_idle(const saver *s);    // nothing under way: the same on every rank
bool saver_busy(const saver *s);    // this rank's thread is at work
size_t saver_bytes(const saver *s); // of host memory
// Copies the weights and optimizer of p and has them written. The saver must be idle. Collective.
err *saver_begin(saver *s, const run_state *state);
// What comes next, at a step boundary at which no rank is busy: gathers what was written and has it
// published, or notes that it was. When that was the last of it, the saver is idle and *out is filled in. An
// error, shared by all ranks, says that this checkpoint has come to nothing: older ones and training are
// untouched. ERR_NUMERIC: weights or optimizer state are not finite. Collective over all ranks.
err *saver_advance(saver *s, saved *out);
// Until it is idle. Collective.
err *saver_finish(saver *s, saved *out);

// ---- finding and loading

// Newest checkpoint of a run whose papers are whole, as a path in *dir (caller frees), or NULL when the run
// has none. Papers: the manifest, headers, plain files, and that all files are there in their size. All ranks
// check them together; a damaged checkpoint is named on rank 0, moved aside as damaged-step-..., and the next
// older one is tried. None good: ERR_INPUT. A disk or a machine that fails (ERR_SYSTEM) says nothing about
// the checkpoint: it stays, and the error is returned. `latest` points to what was found. life: this life's
// directory. Collective.
err *checkpoint_find(comm *c, const char *run_dir, const char *life, char **dir);
// Reads DIR/solar/state.json. Not collective.
err *checkpoint_state(const char *dir, run_state *s);
// Weights and optimizer of p from DIR: what this rank needs, checked as it is read. ERR_MISMATCH, ERR_INPUT:
// damaged. Not collective.
err *checkpoint_load(part *p, const char *dir, int threads);
// Checks every byte of DIR that falls to this rank of so many. ERR_MISMATCH names file and tensor. *checked
// (or NULL): the bytes. Not collective.
err *checkpoint_verify(const char *dir, int rank, int world, int threads, uint64_t *checked);
// All ranks call it with what checkpoint_load said of DIR, the checkpoint of a step; taken over. *damaged: it
// is damaged on some rank, was named, and has been moved aside. Other errors are returned. Collective.
err *checkpoint_judge(comm *c, const char *run_dir, const char *dir, err *mine, bool *damaged);
// Removes what an interrupted life left behind. One rank calls it, and no other life may be running.
void checkpoint_clean(const char *run_dir);

char *state_to_json(const run_state *s); // caller frees

#endif
