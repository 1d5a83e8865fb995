// What every command that runs a model on a mesh has in common: MPI, the device, the model's description, its
// depth plan and layout, and the communicator.
#ifndef SOLAR_ENGINE_H
#define SOLAR_ENGINE_H

#include "../worker/comm.h"
#include "../worker/part.h"
#include "depth.h"
#include "safetensors.h"
#include "spec.h"
#include "table.h"

// ---- MPI, before there is a mesh
typedef struct world {
    int size, rank;
    int local_size, local_rank; // among the ranks of this host
    int cores;                  // of this rank; may be 0
} world;
// Starts MPI. Checks the world against what the launcher said (SLURM_NTASKS of a step, OMPI_COMM_WORLD_SIZE),
// so that N ranks meant never become N trainings of one rank. Collective.
err *world_open(int *argc, char ***argv, world *out);
// Whether all ranks end here together, so that collective clean-up (MPI communicators) is in order.
bool world_orderly(const world *w, const err *e);
// Ends MPI. An error that all ranks share is printed by rank 0; one that may be this rank's alone is printed
// here, and all ranks are ended with its exit status. Takes e over, returns the exit status.
int world_close(const char *command, const world *w, err *e);
// Rank 0's text, or its error, to all ranks; `text` is rank 0's (taken over), *out the caller's to free.
// Collective.
err *world_share(const world *w, err *e, char *text, char **out);
// Every rank passes its own success or failure; all return that of the lowest rank that failed. Collective.
err *world_agree(const world *w, err *mine);
// Cores this rank may use, at least 1: what it is bound to, shared with the ranks bound to the very same.
int world_threads(const world *w);

// ---- a model on paper: its description, depth, layout and tensors; no weights, no MPI
typedef struct blueprint {
    model_spec *base, *spec; // spec: after the depth plan
    depth_plan *plan;
    layout *stages;
    table *table;
} blueprint;
// ask NULL: the base as it is. The costs in `stages` are filled in here.
err *blueprint_make(const char *dir, const depth_ask *ask, const layout_shape *stages, blueprint *out);
void blueprint_free(blueprint *b);

// ---- device
// kind "auto" takes a GPU when this process sees any (index: local rank modulo GPUs), and the CPU when it
// sees none; "cpu"; "cuda". A GPU that cannot be used is an error.
err *device_open(const char *kind, const world *w, int threads, device **out);

// ---- a model for inference, loaded over a mesh
typedef struct engine_options {
    const char *dir; // model directory
    depth_ask depth;
    int pp, tp;
    dtype dt;
    part_use use; // PART_INFER or PART_CACHE
    int64_t batch, rows;
    bool mask_documents;
    int threads; // 0: world_threads
    const char *device;
    double limit; // seconds
} engine_options;
typedef struct engine {
    blueprint b;
    mesh m;
    device *dev;
    comm *c;
    part *p;
} engine;
// Collective over all ranks; every rank returns the same verdict.
err *engine_open(const engine_options *o, const world *w, engine *g);
void engine_close(engine *g);

#endif
