// NVML for the emulated GPUs: EMULATED_ECC uncorrected errors on card 1, EMULATED_PENDING rows there that
// wait to be remapped.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned number(const char *name) {
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned bytes) {
    snprintf(version, bytes, "emulated");
    return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    static char cards[2];
    *device = &cards[strcmp(bus, "ffff:01:00.0") == 0];
    return 0;
}

static int is_one(const void *device) {
    void *one;
    nvmlDeviceGetHandleByPciBusId_v2("ffff:01:00.0", &one);
    return device == one;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) {
    if (type != 1 || counter != 0) return 2; // not what was meant
    *count = is_one(device) ? number("EMULATED_ECC") : 0;
    return 0;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    *corrected = *uncorrected = *failed = 0;
    *pending = is_one(device) ? number("EMULATED_PENDING") : 0;
    return 0;
}
