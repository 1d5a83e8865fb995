// The run config: YAML read through libyaml against a schema. The schema is one table (orchestrator/
// schema.c): the parser, the defaults, `solar config --schema` and the resolved config.yaml of a run all
// come from it.
#ifndef SOLAR_CONFIG_H
#define SOLAR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "depth.h"
#include "dtype.h"
#include "err.h"
#include "mesh.h"
#include "moments.h"
#include "recompute.h"

typedef struct source_config {
    char *name;      // default: the file's name without .h5, for a pattern its directory
    char *files;     // path or glob; config_load makes it absolute
    double weight;   // train only: shares are weight / sum of weights; 0: none
    int64_t samples; // valid only: 0 means all
} source_config;

typedef struct blend_config { // the blend from a sample on
    int64_t at;
    double *weights; // [n_train]
    int n_weights;
} blend_config;

typedef enum schedule_kind { SCHED_WSD, SCHED_COSINE, SCHED_LINEAR, SCHED_CONSTANT } schedule_kind;

typedef struct schedule_phase { // the schedule from a step on
    int64_t at;                 // last step of the phase before; 0 for the first phase
    schedule_kind kind;
    double lr, min_lr;
    int64_t warmup, decay; // steps; decay: the last steps of wsd
    int64_t steps;         // that its shape is drawn over; 0: to the next phase, or the end
} schedule_phase;

typedef struct config {
    struct {
        char *dir;
        int64_t seed;
        char *deadline; // NULL: the job's
        double margin;  // seconds
    } run;
    struct {
        char *base;  // Hugging Face directory; with init: random only its config.json is read
        bool random; // init: random (else init: pretrained, the default)
        bool has_dus;
        int64_t dus_m;                    // -1: not given
        char *dus_layers;                 // NULL: not given
        int64_t insert_every;             // -1: not given
        char *insert_after, *insert_init; // NULL: not given
    } model;
    struct {
        int64_t seq_len;
        source_config *train;
        int n_train;
        source_config *valid;
        int n_valid;
        blend_config *blend;
        int n_blend;
        bool shuffle;                  // default true
        bool allow_tokenizer_mismatch; // default false
        bool mask_documents;           // default false
    } data;
    struct {
        bool automatic; // `auto`: mesh and what goes with it are chosen for the ranks that there are
        char *machine;  // NULL: by train.device
        int64_t pipeline, tensor, interleave;
        mesh_order order;
        bool sequence_parallel;
        int64_t *layers_per_stage; // of every virtual stage; NULL: chosen, aligned to the seam
        int n_layers_per_stage;
        bool seam_inside; // layers_per_stage may leave a seam inside a stage
        char *transport;  // auto | mpi | nccl
    } mesh;
    struct {
        int64_t global_batch, micro_batch, steps;
        dtype precision;      // fp32 | bf16
        dtype grad_accum;     // in which gradients are kept and added over micro-batches
        dtype grad_reduce;    // in which they travel between data ranks
        char *device;         // auto | cpu | cuda
        int64_t threads;      // per rank; 0: from the cores the launcher gave
        bool skip_bad;        // on_bad_step: skip (else stop)
        int64_t max_skipped;  // skipped steps in a row that end the run
        double spike_sigma;   // 0: off
        int64_t spike_window; // steps
        recompute_kind recompute;
        int64_t recompute_every; // layers with index % recompute_every == 0 are recomputed
    } train;
    struct {
        double lr, beta1, beta2, eps, weight_decay, clip_norm; // clip_norm 0: off
        moments_form moments;                                  // how they are kept
        bool offload;                                          // moments in host memory
        bool shard;                                            // over data ranks (ZeRO-1)
    } optimizer;                                               // kind: adamw
    struct {                                                   // multipliers of the learning rate; 0 freezes
        double embedding, head, half_a, half_b, seam, fresh;   // fresh: "new"
        double old;                                            // on top of the first five
        int64_t seam_width; // layers on either side of a seam that `seam` is for
        int64_t until;      // last step they apply to; 0: always
    } lr_scale;
    struct {
        schedule_kind kind; // of the first phase, as the next three and `steps`
        int64_t warmup, decay;
        double min_lr;
        int64_t steps;
        schedule_phase *phases; // those that follow
        int n_phases;
    } schedule;
    struct {
        int64_t every, keep;           // every 0: only at the end; keep 0: all
        int64_t keep_every, keep_best; // 0: none
        double minutes;                // 0: never for the time alone
        bool wait;                     // when_busy: wait, else later
        int64_t file_mib;              // size of a file
    } checkpoint;
    struct {
        int64_t every;            // 0: only at start and end
        bool base;                // measure the base model at the start (default true when there is a dus)
        bool stop_when_recovered; // default false
    } eval;
    struct {
        int64_t every;          // steps between lines of the log; default 10
        int64_t seam_every;     // steps between reports of layers; 0: none
        double slow_factor;     // of the peers' median, above which a rank is named; 0: off
        int64_t timeline_every; // steps between charts of a step; 0: none
    } log;
    struct {
        double start, step; // seconds before a silent peer ends the job; 0: wait for ever
    } timeout;
} config;

// Reads a file, applies `set` ("path.to.key=value", value in YAML), checks everything. ERR_CONFIG:
// "file:line:column: found ..., expected ..., (nearest known key)". A `set` without "=" is ERR_USAGE.
// Paths become absolute: run.dir from the current directory; model.base and token files from the current
// directory if they are there, else from the config file's if there, else again the current one. With
// `check_files`, what is to be read must be there. Not collective: rank 0 does this and broadcasts
// config_dump's text, other ranks config_parse it.
err *config_load(const char *path, const char *const *set, int n_set, bool check_files, config **out);
// Reads what config_dump wrote: the same checks, but paths are taken as they are.
err *config_parse(const char *text, const char *where, config **out);
void config_free(config *c);
depth_ask config_depth(const config *c); // borrows the config's strings
// The resolved config as YAML text, every key present; caller frees. config_parse(config_dump(c)) == c.
char *config_dump(const config *c);
// Every key: path, type, default, unit, meaning. `format` "text" or "markdown".
void config_schema(FILE *out, const char *format);

#endif
