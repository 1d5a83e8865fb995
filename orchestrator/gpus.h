// The GPUs of a job, looked at before it begins: one a rank by its place on its host, near its part of the
// host's memory; all alike, none of them sick; and how their memory will travel.
#ifndef SOLAR_GPUS_H
#define SOLAR_GPUS_H

#include <sched.h>

#include "engine.h"
#include "gpu.h"

// What every rank tells of itself.
typedef struct rank_gpu {
    bool gpu; // else the CPU device
    char host[64];
    gpu_info info;
} rank_gpu;

// Looks at what all ranks have, and says on rank 0 what it found. transport: auto | mpi | nccl; *linked:
// whether device memory travels from GPU to GPU. Several ranks may share a GPU when it does not. Errors: GPUs
// of different kinds, or of some ranks only; a GPU that NVML calls unhealthy; nccl where it cannot be.
// Collective over all ranks; the same verdict everywhere.
err *gpus_check(const world *w, device *dev, const char *transport, bool *linked);
// The same from what all told, without asking or saying anything. nccl: this build has it.
err *gpus_judge(const rank_gpu *all, int n, const char *transport, bool nccl, bool *linked);

// CPUs of a list such as "0-3,8,10-11" that are among `mine`; false when the text is not such a list or there
// are none.
bool cpus_among(const char *list, const cpu_set_t *mine, cpu_set_t *out);

#endif
