// What the emulated machine says of its GPUs: EMULATED_GPUS of them (1), all alike but for EMULATED_ODD, if
// any.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda_runtime_api.h"

static int number(const char *name, int otherwise) {
    const char *text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

static bool is_there(int index) { return index >= 0 && index < number("EMULATED_GPUS", 1); }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = number("EMULATED_GPUS", 1);
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int index) { return is_there(index) ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int) {
    *value = a == cudaDevAttrComputeCapabilityMajor ? 8 : 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index) {
    *p = {};
    std::snprintf(p->name, sizeof p->name, "emulated GPU%s",
                  index == number("EMULATED_ODD", -1) ? ", another" : "");
    p->uuid.bytes[0] = static_cast<char>(index + 1);
    p->totalGlobalMem = static_cast<size_t>(8) << 30;
    p->major = 8;
    return is_there(index) ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int index) {
    std::snprintf(out, bytes, "FFFF:%02X:00.0", index);
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) {
    *can = 1;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }
