// Queues of a GPU are streams: what is done beside what, and waiting for it.
#include <sched.h>
#include <stdlib.h>

#include "device.h"
#include "log.h"
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define RANGE_BEGIN(name) nvtxRangePushA(name)
#define RANGE_END()       nvtxRangePop()
#else
#define RANGE_BEGIN(name) (void)(name)
#define RANGE_END()       (void)0
#endif

// Polls before giving up the core, and between two questions to who watches.
enum { SPINS = 4096, ASK = 256 };

static inline cuda_device *cuda_of(device *d) { return (cuda_device *)d; }
static inline cudaEvent_t event_of(event *e) { return (cudaEvent_t)(void *)e; }

static err *queue_error(const cuda_device *c, const char *what, cudaError_t status) {
    if (status == cudaSuccess) return NULL;
    cudaGetLastError();
    return err_new(ERR_SYSTEM, "GPU %d: %s: %s (%s)", c->index, what, cudaGetErrorName(status),
                   cudaGetErrorString(status));
}

// Messages and copies go before the work of the step where both want the GPU: they are small, and others wait
// for them.
err *cuda_queues_open(cuda_device *c) {
    err *e = NULL;
    int least = 0, greatest = 0;
    TRY(queue_error(c, "priorities of streams", cudaDeviceGetStreamPriorityRange(&least, &greatest)));
    for (int q = 0; q < QUEUES && !e; q++)
        e = queue_error(c, "a stream",
                        cudaStreamCreateWithPriority(&c->streams[q], cudaStreamNonBlocking,
                                                     q == QUEUE_COMPUTE ? least : greatest));
    c->stream = c->streams[QUEUE_COMPUTE];
done:
    return e;
}

void cuda_queues_close(cuda_device *c) {
    for (int q = 0; q < QUEUES; q++)
        if (c->streams[q]) cudaStreamDestroy(c->streams[q]);
}

void cuda_use(device *d, queue q) { cuda_of(d)->stream = cuda_of(d)->streams[q]; }

void *cuda_native_queue(device *d) { return cuda_enter(d)->stream; }

// ---- events

err *cuda_event_open(device *d, event **out) {
    cuda_device *c = cuda_enter(d);
    cudaEvent_t e = NULL;
    err *failed = queue_error(c, "an event", cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    *out = (event *)(void *)e;
    return failed;
}

void cuda_event_close(device *d, event *e) {
    if (e) cuda_check(cuda_enter(d), "closing an event", cudaEventDestroy(event_of(e)));
}

void cuda_mark(device *d, event *e) {
    cuda_device *c = cuda_enter(d);
    cuda_check(c, "marking an event", cudaEventRecord(event_of(e), c->stream));
}

void cuda_follow(device *d, event *e) {
    cuda_device *c = cuda_enter(d);
    cuda_check(c, "waiting for an event", cudaStreamWaitEvent(c->stream, event_of(e), 0));
}

// What failed shows at the next sync, of the thread that the device belongs to.
bool cuda_reached(device *d, event *e) {
    (void)d;
    return cudaEventQuery(event_of(e)) != cudaErrorNotReady;
}

// ---- waiting

void cuda_watch(device *d, err *(*watch)(void *who, double waited), void *who) {
    cuda_of(d)->watch = watch;
    cuda_of(d)->who = who;
}

void cuda_wait(cuda_device *c, const char *op) {
    err *e = NULL;
    double start = now_seconds();
    for (long polls = 1; !c->lost; polls++) {
        cudaError_t status = c->watch ? cudaStreamQuery(c->stream) : cudaStreamSynchronize(c->stream);
        if (status != cudaErrorNotReady) {
            cuda_check(c, op, status);
            return;
        }
        if (polls > SPINS) sched_yield(); // ranks may outnumber cores
        if (polls % ASK == 0 && (e = c->watch(c->who, now_seconds() - start))) {
            cuda_fail(c, e);
            c->lost = true;
        }
    }
}

// ---- host memory

err *cuda_pin(device *d, void *host, size_t bytes) {
    if (!bytes) return NULL;
    err *e = queue_error(cuda_enter(d), "pinning host memory",
                         cudaHostRegister(host, bytes, cudaHostRegisterDefault));
    return err_wrap(e, "%zu bytes (`ulimit -l` and the job's memory limit may be in the way)", bytes);
}

void cuda_unpin(device *d, void *host) {
    if (host) cuda_check(cuda_enter(d), "unpinning host memory", cudaHostUnregister(host));
}

void cuda_fetch(device *d, void *host, const void *src, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (bytes) cuda_check(c, "fetch", cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, c->stream));
}

void cuda_store(device *d, void *dst, const void *host, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (bytes) cuda_check(c, "store", cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, c->stream));
}

// ---- for whoever looks on

void cuda_range_begin(device *d, const char *name) {
    (void)d;
    RANGE_BEGIN(name);
}

void cuda_range_end(device *d) {
    (void)d;
    RANGE_END();
}

void cuda_memory(device *d, size_t *used, size_t *total) {
    cuda_device *c = cuda_enter(d);
    size_t unused = 0;
    *total = 0;
    cuda_check(c, "asking for its memory", cudaMemGetInfo(&unused, total));
    *used = *total - unused;
}
