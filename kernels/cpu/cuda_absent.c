// What a build without CUDA answers when asked for a GPU.
#include "ops.h"

#ifndef SOLAR_CUDA
err *cuda_open(int index, device **out) {
    *out = NULL;
    return err_new(
        ERR_SYSTEM,
        "GPU %d was asked for, but this program was built without CUDA: use device: cpu, or install "
        "the CUDA toolkit and build again with CUDA=1",
        index);
}
#endif
