// Opening a GPU, its memory, its errors, and the table of its ops.
#include <stdlib.h>

#include "device.h"

enum {
    OLDEST = 8,            // compute capability 8.0: the first with bf16 arithmetic
    LEAST_ALLOCATION = 64, // so that an empty array has an address too
};

static inline cuda_device *cuda_of(device *d) { return (cuda_device *)d; }

// ---- errors

void cuda_fail(cuda_device *c, err *e) { c->failed = err_first(c->failed, e); }

void cuda_check(cuda_device *c, const char *op, cudaError_t status) {
    if (status == cudaSuccess) return;
    cudaGetLastError(); // the runtime keeps its own copy, which the next call would report once more
    if (c->failed) return;
    c->failed = err_new(ERR_SYSTEM,
                        "GPU %d: %s reported %s (%s); work queued before it may be the cause: run again with "
                        "CUDA_LAUNCH_BLOCKING=1 to find which",
                        c->index, op, cudaGetErrorName(status), cudaGetErrorString(status));
}

cuda_device *cuda_enter(device *d) {
    cuda_device *c = cuda_of(d);
    cuda_check(c, "cudaSetDevice", cudaSetDevice(c->index));
    return c;
}

// ---- memory

static err *cuda_alloc(device *d, size_t bytes, void **out) {
    cuda_device *c = cuda_enter(d);
    size_t free_bytes = 0, total = 0;
    *out = NULL;
    cudaError_t status = cudaMalloc(out, bytes ? bytes : LEAST_ALLOCATION);
    if (status == cudaSuccess) return NULL;
    *out = NULL;
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    return err_new(ERR_SYSTEM, "GPU %d: no memory for %zu bytes (%zu of %zu are free): %s", c->index, bytes,
                   free_bytes, total, cudaGetErrorString(status));
}

static void cuda_free(device *d, void *p) {
    cuda_device *c = cuda_enter(d);
    if (p) cuda_check(c, "free", cudaFree(p));
}

// The host's array may be gone as soon as this returns, and an asynchronous copy is allowed to read it later.
static void cuda_upload(device *d, void *dst, const void *host, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (!bytes) return;
    cuda_check(c, "upload", cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, c->stream));
    cuda_wait(c, "upload");
}

static void cuda_download(device *d, void *host, const void *src, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (!bytes) return;
    cuda_check(c, "download", cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, c->stream));
    cuda_wait(c, "download");
}

static void cuda_copy(device *d, void *dst, const void *src, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (bytes) cuda_check(c, "copy", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, c->stream));
}

static void cuda_zero(device *d, void *dst, size_t bytes) {
    cuda_device *c = cuda_enter(d);
    if (bytes) cuda_check(c, "zero", cudaMemsetAsync(dst, 0, bytes, c->stream));
}

static err *cuda_failure(device *d) {
    cuda_device *c = cuda_of(d);
    err *e = c->failed;
    c->failed = NULL;
    return e;
}

static err *cuda_sync(device *d) {
    cuda_wait(cuda_enter(d), "sync");
    return cuda_failure(d);
}

static void cuda_close(device *d) {
    if (!d) return;
    cuda_device *c = cuda_enter(d);
    cuda_products_close(c);
    cuda_queues_close(c);
    if (c->sums) cudaFree(c->sums);
    err_free(c->failed);
    free(c);
}

static const ops cuda_ops = {
    .name = "cuda",
    .host_memory = false,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .sync = cuda_sync,
    .failure = cuda_failure,
    .close = cuda_close,
    .use = cuda_use,
    .event_open = cuda_event_open,
    .event_close = cuda_event_close,
    .mark = cuda_mark,
    .follow = cuda_follow,
    .reached = cuda_reached,
    .native_queue = cuda_native_queue,
    .watch = cuda_watch,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .fetch = cuda_fetch,
    .store = cuda_store,
    .range_begin = cuda_range_begin,
    .range_end = cuda_range_end,
    .memory = cuda_memory,
    .product = cuda_product,
    .bias = cuda_bias,
    .bias_grad = cuda_bias_grad,
    .embed = cuda_embed,
    .embed_grad = cuda_embed_grad,
    .rmsnorm = cuda_rmsnorm,
    .rmsnorm_grad = cuda_rmsnorm_grad,
    .rope = cuda_rope,
    .attention = cuda_attention,
    .attention_grad = cuda_attention_grad,
    .swiglu = cuda_swiglu,
    .swiglu_grad = cuda_swiglu_grad,
    .xent_stats = cuda_xent_stats,
    .xent_merge = cuda_xent_merge,
    .xent_grad = cuda_xent_grad,
    .add = cuda_add,
    .cast = cuda_cast,
    .sum_rows = cuda_sum_rows,
    .sumsq = cuda_sumsq,
    .sum = cuda_sum,
    .adamw = cuda_adamw,
};

// ---- opening

err *cuda_try(cudaError_t status, const char *what) {
    if (status == cudaSuccess) return NULL;
    cudaGetLastError();
    return err_new(ERR_SYSTEM, "%s: %s (%s)", what, cudaGetErrorName(status), cudaGetErrorString(status));
}

// Streams that share a connection to the GPU wait for each other; there are more of ours than the default of
// connections, and NCCL has its own. To be set before the first call.
static err *count_gpus(int *count) {
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaSuccess && *count > 0) return NULL;
    cudaGetLastError();
    if (status == cudaSuccess) status = cudaErrorNoDevice;
    return err_new(ERR_SYSTEM,
                   "no CUDA driver or GPU: %s (%s); `nvidia-smi` shows what there is, device cpu needs none",
                   cudaGetErrorString(status), cudaGetErrorName(status));
}

// A GPU that this program has code for.
static err *check_gpu(int index) {
    err *e = NULL;
    int major = 0, minor = 0;
    TRY(cuda_try(cudaSetDevice(index), "making it current"));
    TRY(cuda_try(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "its model"));
    TRY(cuda_try(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "its model"));
    if (major < OLDEST)
        FAIL(ERR_SYSTEM, "its compute capability is %d.%d, and bf16 needs %d.0 (A100) or newer", major, minor,
             OLDEST);
    e = cuda_try(cuda_code_present(), "a kernel");
    e = err_wrap(e,
                 "this program has no code for compute capability %d.%d: build it with "
                 "CUDA_ARCH=\"80 90a %d%d\"",
                 major, minor, major, minor);
done:
    return e;
}

err *cuda_open(int index, device **out) {
    err *e = NULL;
    int count = 0;
    cuda_device *c = NULL;
    *out = NULL;
    if (index < 0) return err_new(ERR_USAGE, "GPU %d: the index of a GPU is at least 0", index);
    TRY(count_gpus(&count));
    c = calloc(1, sizeof *c);
    if (!c) FAIL(ERR_SYSTEM, "no memory to open GPU %d", index);
    c->base.ops = &cuda_ops;
    c->index = index % count;
    TRY(check_gpu(c->index));
    TRY(cuda_queues_open(c));
    TRY(cuda_try(cudaMalloc((void **)&c->sums, SUM_PIECES * sizeof *c->sums), "memory for sums"));
    TRY(cuda_products_open(c));
    *out = &c->base;
    return NULL;
done:
    if (!c) return e;
    e = err_wrap(e, "GPU %d of %d", c->index, count);
    cuda_close(&c->base);
    return e;
}
