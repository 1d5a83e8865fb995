// Every arithmetic operation of the training step, behind one table, for every kind of device.
//
// Conventions
// - Matrices are row-major. T is the number of token rows of a micro-batch (batch x sequence).
// - `dt` is the element type of activations and weights (DT_F32 or DT_BF16). Arithmetic inside an op
//   is fp32, results are rounded once to `dt`. Gradients of weights are `gdt` (DT_F32, or dt) and always
//   ADDED to: all that a call adds to an element is summed in fp32 together with what is there, and rounded
//   once.
// - Operations are queued on the device in call order and return nothing; a failure is kept and
//   returned by the next `sync`. The CPU device works at once. A device may have several queues, which
//   work beside each other; unless said otherwise everything is queued on QUEUE_COMPUTE.
// - Nothing in an op depends on the number of threads: the same call gives the same bits.
// - Nothing allocates, except scratch of the device on the first call that needs as much.
// - Not collective: a device belongs to one rank, and is used by one thread of it.
// - C++ (kernels/cuda) reads this header too: where a member of `ops` has the name of a type, the type is
//   written with `struct`.
#ifndef SOLAR_OPS_H
#define SOLAR_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "err.h"
#include "moments.h"

typedef struct device {
    const struct ops *ops; // first member; a backend puts its own state behind it
} device;

// C[m,n] (+)= op(A)[m,k] op(B)[k,n], op(X) = X or X^T. A and B are `dt`, C is `cdt` (dt or DT_F32).
// Element (i,j) of a stored matrix is at base[i*ld + j]; `trans_a` means A is stored [k,m].
typedef struct product {
    dtype dt, cdt;
    bool trans_a, trans_b, accumulate; // accumulate: C += ..., else C = ... (C is not read)
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
} product;

// Causal attention of `batch` sequences. Rows of sequence b are b*rows .. b*rows+rows-1 of every
// buffer. Queries are rows q_start .. q_start+q_rows-1 of each sequence (training: 0 and rows);
// query row i sees keys j with max(first(i), i-window+1) <= j <= i, where first(i) = start[b*rows+i]
// if `start` is not NULL (document masking), else 0; window 0 means no window.
// q/k/v/out element (row, head, d) is at base[row*ld + head*head_dim + d].
// Query head h uses key/value head h / (heads/kv_heads).
// A device may round the weights, and backward the gradients of the scores, to `dt` before it multiplies by
// them. out = softmax(scale q k^T) v;  lse[(b*heads + head)*rows + i] = log sum exp of the scaled scores.
typedef struct attention {
    dtype dt;
    int64_t batch, rows, q_start, q_rows, heads, kv_heads, head_dim, window;
    float scale;
    const int32_t *start; // [batch*rows] or NULL
    const void *q, *k, *v;
    int64_t ld; // of q, k, v and of their gradients (they share one packed buffer)
    void *out;
    int64_t ld_out; // of out and d_out
    float *lse;
    // backward only (q_start must be 0 and q_rows == rows); overwritten, not added to
    const void *d_out;
    void *dq, *dk, *dv;
    float *delta; // scratch [batch*heads*rows]
} attention;

// AdamW with decoupled weight decay (Loshchilov & Hutter 2019, as torch.optim.AdamW computes it):
//   g = grad*grad_scale;  w *= 1 - lr*decay;  m += (1-beta1)(g-m);  v = beta2 v + (1-beta2) g^2
//   w -= lr/(1-beta1^step) * m / (sqrt(v)/sqrt(1-beta2^step) + eps)
typedef struct adamw {
    dtype dt;                     // of `weight`
    int64_t n;                    // elements
    void *weight;                 // dt. The update is made in fp32: of DT_BF16 with
    int16_t *rest;                // [n] the other halves (float_split); NULL for DT_F32
    moments_form form;            // of m and v
    void *m, *v;                  // [n] fp32, bf16 or codes
    float *m_largest, *v_largest; // MOMENTS_INT8: of every block
    int64_t lead;                 // MOMENTS_INT8: elements of the first block, 1 to MOMENT_BLOCK
    dtype gdt;                    // of `grad`
    const void *grad;
    float grad_scale, lr, beta1, beta2, eps, decay;
    int64_t step; // 1 for the first update
    // Random numbers of moments that are rounded: a key, other for every tensor and update, and element i's
    // place in the tensor: origin + (at + i)/cols*width + (at + i)%cols.
    uint64_t key;
    int64_t origin, at, cols, width;
} adamw;

// Queues of a device. What is queued on one is done in order; between queues only events say what comes
// first.
typedef enum queue {
    QUEUE_COMPUTE, // the work of the step
    QUEUE_REDUCE,  // sums of gradients over ranks
    QUEUE_FETCH,   // copies to the host, and
    QUEUE_STORE,   // from it
    // messages of a pipeline, by where they come from or go to (comm.h)
    QUEUE_FORWARD_OUT,
    QUEUE_FORWARD_IN,
    QUEUE_BACKWARD_OUT,
    QUEUE_BACKWARD_IN,
    QUEUES,
} queue;
typedef struct event event; // a point in a queue; NULL on a device that works at once

// out[n] = the rows in order, added in fp32 and rounded once to `out_dt`. Row r is at rows + r*ld elements,
// but for row `own_row`, which is at `own`. `out` may be `own` if the types are the same.
typedef struct row_sum {
    dtype dt, out_dt; // of the rows; of out
    int64_t count, ld, n;
    const void *rows, *own;
    int64_t own_row; // 0 <= own_row < count
    void *out;
} row_sum;

typedef struct ops {
    const char *name; // "cpu", "cuda"
    bool host_memory; // device pointers may be read and written by the host
    bool imaginary;   // memory has no contents (cost.h)

    // ---- memory: 64-byte aligned; every alloc is freed by `free`; contents are undefined
    err *(*alloc)(device *d, size_t bytes, void **out);
    void (*free)(device *d, void *p);
    void (*upload)(device *d, void *dst, const void *host, size_t bytes);
    void (*download)(device *d, void *host, const void *src, size_t bytes); // complete on return
    void (*copy)(device *d, void *dst, const void *src, size_t bytes);
    void (*zero)(device *d, void *dst, size_t bytes);
    err *(*sync)(device *d);    // waits for all work of the current queue, returns the first error
    err *(*failure)(device *d); // the first error so far, without waiting
    void (*close)(device *d);

    // ---- queues and events
    void (*use)(device *d, queue q); // the current queue from here on: where everything else is queued
    err *(*event_open)(device *d, event **out);
    void (*event_close)(device *d, event *e);
    void (*mark)(device *d, event *e);   // e is reached when what is on the current queue by now is done
    void (*follow)(device *d, event *e); // what comes on the current queue from here on waits for e
    bool (*reached)(device *d,
                    event *e); // asks, and does not wait; any thread. Also true when work has failed
    // What a library that queues work of its own takes for the current queue (cudaStream_t).
    void *(*native_queue)(device *d);
    // While the host waits for the device, it asks `watch` now and then, with the seconds waited; an error of
    // it is the end of the wait, and the device's own from there on. NULL: nobody is asked.
    void (*watch)(device *d, err *(*watch)(void *who, double waited), void *who);
    // Host memory that `fetch` and `store` may use: taken in and let go. The memory stays the caller's.
    err *(*pin)(device *d, void *host, size_t bytes);
    void (*unpin)(device *d, void *host);
    void (*fetch)(device *d, void *host, const void *src, size_t bytes); // as download and upload, but queued
    void (*store)(device *d, void *dst, const void *host, size_t bytes);
    // Names the work between the two to whoever looks on (a profiler); nested.
    void (*range_begin)(device *d, const char *name);
    void (*range_end)(device *d);
    // Bytes of the device in use, by anybody, and all that it has; 0 where it is the host's memory.
    void (*memory)(device *d, size_t *used, size_t *total);

    // ---- linear layers
    void (*product)(device *d, const struct product *p);
    // y[T,n] (row stride ld) += b[n]
    void (*bias)(device *d, dtype dt, void *y, int64_t ld, const void *b, int64_t T, int64_t n);
    // db[n] += column sums of dy[T,n]
    void (*bias_grad)(device *d, dtype dt, dtype gdt, void *db, const void *dy, int64_t ld, int64_t T,
                      int64_t n);

    // ---- embedding: table holds vocabulary rows first .. first+rows-1
    // y[T,h] = table[token-first], or 0 where the token is not among these rows
    void (*embed)(device *d, dtype dt, void *y, const void *table, const int32_t *tokens, int64_t T,
                  int64_t h, int64_t first, int64_t rows);
    // dtable[token-first] += dy, in row order (deterministic). `chain` is scratch of T numbers
    void (*embed_grad)(device *d, dtype dt, dtype gdt, void *dtable, const void *dy, const int32_t *tokens,
                       int32_t *chain, int64_t T, int64_t h, int64_t first, int64_t rows);

    // ---- RMSNorm (Zhang & Sennrich 2019) with the residual addition before it.
    // s = x + delta (delta may be NULL; `sum` gets s rounded to dt, may be x itself, and is not written
    // when delta is NULL); rstd[T] = 1/sqrt(mean(s^2)+eps);  y[T,h] = round(s*rstd) * w
    // (the inner rounding to dt is what Transformers does)
    void (*rmsnorm)(device *d, dtype dt, void *y, float *rstd, void *sum, const void *x, const void *delta,
                    const void *w, int64_t T, int64_t h, float eps);
    // dx = residual + gradient through the norm (residual may be NULL or dx itself); dw += ...
    // `partial` is scratch of ops_norm_partial(T, h) floats: dw must not depend on the thread count
    void (*rmsnorm_grad)(device *d, dtype dt, dtype gdt, void *dx, void *dw, const void *residual,
                         const void *dy, const void *x, const void *w, const float *rstd, float *partial,
                         int64_t T, int64_t h);

    // ---- rotary embedding in place on `heads` heads at the start of each row (half-rotation order):
    // (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin); inverse: the transpose, for the gradient.
    // cos, sin: fp32 [positions, head_dim/2]; pos[T] selects the row
    void (*rope)(device *d, dtype dt, void *x, int64_t ld, const int32_t *pos, const float *cos,
                 const float *sin, int64_t T, int64_t heads, int64_t head_dim, bool inverse);

    void (*attention)(device *d, const struct attention *a);
    void (*attention_grad)(device *d, const struct attention *a);

    // ---- gated feed-forward: gu[T,2f] holds gate (columns 0..f-1) and up; y[T,f] = silu(gate)*up
    void (*swiglu)(device *d, dtype dt, void *y, const void *gu, int64_t T, int64_t f);
    // dgu may be gu itself
    void (*swiglu_grad)(device *d, dtype dt, void *dgu, const void *dy, const void *gu, int64_t T, int64_t f);

    // ---- cross-entropy over a vocabulary split among ranks; logits fp32 [T,v], columns are
    // vocabulary rows first .. first+v-1. A target < 0 is masked: no loss, no gradient.
    // stats[T,3] = {max, sum exp(x - max), logit of the target, or -inf if it is not in this part}
    void (*xent_stats)(device *d, float *stats, const float *logits, int64_t ld, const int32_t *targets,
                       int64_t T, int64_t v, int64_t first);
    // stats[parts,T,3] of all parts in rank order -> lse[T], loss[T] = lse - target logit (masked: 0)
    void (*xent_merge)(device *d, float *loss, float *lse, const float *stats, int64_t parts,
                       const int32_t *targets, int64_t T);
    // grad[T,v] = scale*(softmax - onehot), 0 in masked rows; grad may be logits when dt is DT_F32
    void (*xent_grad)(device *d, dtype dt, void *grad, const float *logits, int64_t ld, const float *lse,
                      const int32_t *targets, float scale, int64_t T, int64_t v, int64_t first);

    // ---- elementwise and optimizer
    void (*add)(device *d, dtype dt, void *y, const void *x, int64_t n); // y += x
    void (*sum_rows)(device *d, const struct row_sum *s);
    void (*cast)(device *d, dtype to, void *dst, dtype from, const void *src, int64_t n);
    // *out (device memory) = sum of squares in fp64, fixed order; NaN and Inf come through
    void (*sumsq)(device *d, double *out, dtype dt, const void *x, int64_t n);
    // *out (device memory) = sum in fp64, fixed order
    void (*sum)(device *d, double *out, const float *x, int64_t n);
    void (*adamw)(device *d, const struct adamw *a);
} ops;

// Floats of scratch that rmsnorm_grad needs.
int64_t ops_norm_partial(int64_t T, int64_t h);

// Opens the CPU device with `threads` >= 1 threads (one per core the launcher gave this rank).
err *cpu_open(int threads, device **out);
// Opens GPU `index` modulo the number of GPUs that this process sees, so that a local rank will do;
// ERR_SYSTEM with the driver's words when there is none, or when this build has no CUDA.
err *cuda_open(int index, device **out);

#endif
