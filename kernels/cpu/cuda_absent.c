// What a build without CUDA answers when asked for a GPU.
#include "gpu.h"

#ifndef SOLAR_CUDA
static err *absent(int index) {
    return err_new(
        ERR_SYSTEM,
        "GPU %d was asked for, but this program was built without CUDA: use device: cpu, or install "
        "the CUDA toolkit and build again with CUDA=1",
        index);
}

err *cuda_open(int index, device **out) {
    *out = NULL;
    return absent(index);
}

int cuda_count(void) { return 0; }

err *cuda_info(device *d, gpu_info *out) {
    (void)d;
    *out = (gpu_info){.health = GPU_UNKNOWN};
    return absent(0);
}
#endif
