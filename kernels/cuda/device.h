// The CUDA device behind include/ops.h: shared by the files of this folder only, in C and in CUDA C++.
#ifndef SOLAR_CUDA_DEVICE_H
#define SOLAR_CUDA_DEVICE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "ops.h"

// Sums of long arrays are cut into at most so many pieces, the same on every GPU.
enum { SUM_PIECES = 1024 };

typedef struct cuda_device {
    device base;
    int index;           // of the GPU
    cudaStream_t stream; // the current one of `streams`: work is queued here, in call order
    cudaStream_t streams[QUEUES];
    err *(*watch)(void *who, double waited); // asked while the host waits; NULL: nobody
    void *who;
    bool lost;                 // a wait was given up: what is queued may never end
    struct products *products; // how matrix products are done (product.cu)
    double *sums;              // [SUM_PIECES] on the GPU
    err *failed;               // first failure since the last sync
} cuda_device;

// The device, its GPU made current for the calling thread: the first line of every op.
cuda_device *cuda_enter(device *d);
// Keeps the first failure for the next sync.
void cuda_fail(cuda_device *c, err *e);
void cuda_check(cuda_device *c, const char *op, cudaError_t status);
// Waits for the current stream, asking `watch`; fails as the op that is named.
void cuda_wait(cuda_device *c, const char *op); // queues.c
// The same as an error of its own, while a device is being opened.
err *cuda_try(cudaError_t status, const char *what);
// Whether this program holds code for the current GPU (elementwise.cu).
cudaError_t cuda_code_present(void);

// What matrix products need of their own (product.cu); closing is fine after opening failed.
err *cuda_products_open(cuda_device *c);
void cuda_products_close(cuda_device *c);

// ---- queues.c
err *cuda_queues_open(cuda_device *c);
void cuda_queues_close(cuda_device *c);
void cuda_use(device *d, queue q);
err *cuda_event_open(device *d, event **out);
void cuda_event_close(device *d, event *e);
void cuda_mark(device *d, event *e);
void cuda_follow(device *d, event *e);
bool cuda_reached(device *d, event *e);
void *cuda_native_queue(device *d);
void cuda_watch(device *d, err *(*watch)(void *who, double waited), void *who);
err *cuda_pin(device *d, void *host, size_t bytes);
void cuda_unpin(device *d, void *host);
void cuda_fetch(device *d, void *host, const void *src, size_t bytes);
void cuda_store(device *d, void *dst, const void *host, size_t bytes);
void cuda_range_begin(device *d, const char *name);
void cuda_range_end(device *d);
void cuda_memory(device *d, size_t *used, size_t *total);

// ---- the ops, by file
void cuda_product(device *d, const product *p); // product.cu

void cuda_bias(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n); // linear.cu
void cuda_bias_grad(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                    int64_t n);

void cuda_embed(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T, int64_t h,
                int64_t first, int64_t rows); // embed.cu
void cuda_embed_grad(device *d, dtype dt, dtype gdt, void *dtable, const void *dy, const int32_t *tokens,
                     int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows);

void cuda_rmsnorm(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                  const void *w, int64_t T, int64_t h, float eps); // norm.cu
void cuda_rmsnorm_grad(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                       const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                       int64_t T, int64_t h);

void cuda_rope(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
               const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse); // elementwise.cu
void cuda_swiglu(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f);
void cuda_swiglu_grad(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T, int64_t f);
void cuda_add(device *d, dtype dt, void *y, const void *x, int64_t n);
void cuda_cast(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n);
void cuda_sum_rows(device *d, const row_sum *s);

void cuda_attention(device *d, const attention *a);      // attention.cu
void cuda_attention_grad(device *d, const attention *a); // attention_grad.cu

void cuda_xent_stats(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                     int64_t T, int64_t v, int64_t first); // xent.cu
void cuda_xent_merge(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                     const int32_t *targets, int64_t T);
void cuda_xent_grad(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                    const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first);

void cuda_sum(device *d, double *out, const float *x, int64_t n); // optimizer.cu
void cuda_sumsq(device *d, double *out, dtype dt, const void *x, int64_t n);
void cuda_adamw(device *d, const adamw *a);

#ifdef __cplusplus
}
#endif
#endif
