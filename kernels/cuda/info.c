// What a GPU is, by the CUDA runtime, and how it is, by NVML where that is installed.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "gpu.h"

// The part of NVML's interface that is used here (NVIDIA Management Library API reference); it is loaded at
// run time, because a machine without a GPU has none.
typedef struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver)(char *version, unsigned bytes);
    int (*handle)(const char *bus, void **device);
    int (*ecc)(void *device, int type, int counter, unsigned long long *count);
    int (*rows)(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                unsigned *failed);
} nvml;
enum { NVML_OK = 0, NVML_UNCORRECTED = 1, NVML_VOLATILE = 0 };

static bool find(const nvml *n, const char *name, void *function) {
    void *at = dlsym(n->library, name);
    memcpy(function, &at, sizeof at); // as POSIX has it: no cast between data and functions
    return at != NULL;
}

static bool nvml_load(nvml *n) {
    *n = (nvml){.library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!n->library) return false;
    return find(n, "nvmlInit_v2", &n->init) && find(n, "nvmlShutdown", &n->shutdown) &&
           find(n, "nvmlSystemGetDriverVersion", &n->driver) &&
           find(n, "nvmlDeviceGetHandleByPciBusId_v2", &n->handle) &&
           find(n, "nvmlDeviceGetTotalEccErrors", &n->ecc) &&
           find(n, "nvmlDeviceGetRemappedRows", &n->rows) && n->init() == NVML_OK;
}

static void bad(gpu_info *out, const char *why, unsigned long long count) {
    out->health = GPU_BAD;
    snprintf(out->why, sizeof out->why, why, count);
}

// What a card does not count (no ECC, no remapping), it does not answer; that is no fault.
static void judge(const nvml *n, gpu_info *out) {
    void *card = NULL;
    unsigned long long errors = 0;
    unsigned corrected = 0, uncorrected = 0, pending = 0, failed = 0;
    if (n->driver(out->driver_name, sizeof out->driver_name) != NVML_OK) out->driver_name[0] = 0;
    if (n->handle(out->bus, &card) != NVML_OK) {
        snprintf(out->why, sizeof out->why, "NVML does not know the card");
        return;
    }
    out->health = GPU_GOOD;
    if (n->ecc(card, NVML_UNCORRECTED, NVML_VOLATILE, &errors) == NVML_OK && errors > 0)
        bad(out, "%llu uncorrected ECC errors since the driver was loaded", errors);
    if (n->rows(card, &corrected, &uncorrected, &pending, &failed) != NVML_OK) return;
    if (failed) bad(out, "rows of its memory could not be remapped (%llu): it has to be replaced", failed);
    if (pending && out->health == GPU_GOOD)
        bad(out, "rows of its memory wait to be remapped (%llu): it has to be reset", pending);
}

static void take_health(gpu_info *out) {
    nvml n;
    snprintf(out->why, sizeof out->why, "NVML (libnvidia-ml.so.1) is not there");
    if (nvml_load(&n)) {
        judge(&n, out);
        n.shutdown();
    }
    if (n.library) dlclose(n.library);
}

static err *asked(const cuda_device *c, cudaError_t status) {
    if (status == cudaSuccess) return NULL;
    cudaGetLastError();
    return err_new(ERR_SYSTEM, "GPU %d: asking what it is: %s (%s)", c->index, cudaGetErrorName(status),
                   cudaGetErrorString(status));
}

static err *take_peers(const cuda_device *c, gpu_info *out) {
    err *e = NULL;
    int count = 0, can = 0;
    TRY(asked(c, cudaGetDeviceCount(&count)));
    for (int i = 0; i < count; i++) {
        if (i == c->index) continue;
        TRY(asked(c, cudaDeviceCanAccessPeer(&can, c->index, i)));
        out->visible++;
        out->reached += can;
    }
done:
    return e;
}

int cuda_count(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();
    return 0;
}

err *cuda_info(device *d, gpu_info *out) {
    err *e = NULL;
    cuda_device *c = cuda_enter(d);
    struct cudaDeviceProp p;
    *out = (gpu_info){.health = GPU_UNKNOWN};
    TRY(asked(c, cudaGetDeviceProperties(&p, c->index)));
    TRY(asked(c, cudaDeviceGetPCIBusId(out->bus, sizeof out->bus, c->index)));
    TRY(asked(c, cudaDriverGetVersion(&out->driver)));
    TRY(asked(c, cudaRuntimeGetVersion(&out->runtime)));
    TRY(take_peers(c, out));
    for (char *x = out->bus; *x; x++) // as the kernel's tables have it
        if (*x >= 'A' && *x <= 'F') *x = (char)(*x - 'A' + 'a');
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    memcpy(out->uuid, &p.uuid, sizeof out->uuid);
    out->memory = p.totalGlobalMem;
    out->major = p.major, out->minor = p.minor;
    take_health(out);
done:
    return e;
}
