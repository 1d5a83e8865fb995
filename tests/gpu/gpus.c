// The GPUs that this process sees: gpus prints a line for each, as measurements and tests put at their head.
// Exit status: 0; 1: one cannot be used; 77: there is none, and why.
#include <stdio.h>
#include <string.h>

#include "gpu.h"
#include "link.h"
#include "log.h"

enum { NO_GPU = 77 };

static void print_gpu(int index, const gpu_info *g) {
    char memory[32], version[32];
    const char *nccl = links_version(version);
    format_bytes(memory, (double)g->memory);
    printf("GPU %d: %s at %s, %s, compute capability %d.%d; driver %s (CUDA %d.%d), built for CUDA %d.%d, "
           "NCCL %s; %s\n",
           index, g->name, g->bus, memory, g->major, g->minor, *g->driver_name ? g->driver_name : "?",
           g->driver / 1000, g->driver / 10 % 100, g->runtime / 1000, g->runtime / 10 % 100,
           nccl ? nccl : "none", g->health == GPU_GOOD ? "healthy" : g->why);
}

static err *look(int index) {
    err *e = NULL;
    device *d = NULL;
    gpu_info g;
    TRY(cuda_open(index, &d));
    TRY(cuda_info(d, &g));
    print_gpu(index, &g);
    if (g.health == GPU_BAD) e = err_new(ERR_SYSTEM, "GPU %d is not healthy", index);
done:
    if (d) d->ops->close(d);
    return e;
}

int main(void) {
    device *d;
    err *e = NULL;
    int count = cuda_count();
    if (count == 0) {
        e = cuda_open(0, &d); // which says why
        printf("no GPU: %s\n", err_text(e));
        err_free(e);
        return NO_GPU;
    }
    for (int i = 0; i < count && !e; i++) e = look(i);
    if (!e) return 0;
    fprintf(stderr, "gpus: %s\n", err_text(e));
    err_free(e);
    return 1;
}
