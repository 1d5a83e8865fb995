// What a GPU is and how it is: for the check at the start of a job. Not collective.
#ifndef SOLAR_GPU_H
#define SOLAR_GPU_H

#include "ops.h"

typedef enum gpu_health { GPU_UNKNOWN, GPU_GOOD, GPU_BAD } gpu_health;

typedef struct gpu_info {
    char name[64];
    char bus[16];           // PCI address, "0000:1b:00.0"
    unsigned char uuid[16]; // of the card, or of the part of one
    uint64_t memory;        // bytes
    int major, minor;       // compute capability
    int driver, runtime;    // CUDA versions: 1000 * major + 10 * minor
    char driver_name[32];   // version of the driver; "" when not known
    int visible, reached;   // other GPUs that this process sees; those of them it has peer access to
    gpu_health health;
    char why[160]; // not good: why
} gpu_info;

// GPUs that this process sees; 0 also without a driver, or in a build without CUDA.
int cuda_count(void);
// Of a device from cuda_open. Health is NVML's word: uncorrected ECC errors since the driver was loaded, rows
// that could not be remapped or wait for a reset. GPU_UNKNOWN where libnvidia-ml.so.1 is not there.
err *cuda_info(device *d, gpu_info *out);

#endif
