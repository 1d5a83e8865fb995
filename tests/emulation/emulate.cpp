// A GPU in miniature, to run the kernels of kernels/cuda where there is none: every thread of a block is a
// coroutine, blocks run one after another. It finds wrong indices (with the address sanitizer), misaligned
// packs (with the undefined-behaviour sanitizer), threads that do not all reach a barrier, and most missing
// barriers: each warp runs from one barrier of the block to the next before another warp starts, the first
// warp first or last by turns, and the tests want the same bits from both. What it cannot show: speed, and
// anything about cuBLAS but how it is called. Blocks of whole warps only.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <ucontext.h>
#include <vector>

#include "cublas_v2.h"
#include "cuda_bf16.h"
#include "cuda_runtime.h"
#include "streams.h"

namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024, MOST_ROWS = 65535;
constexpr size_t STACK = 256 << 10, SHARED = 163 << 10,
                 WITHOUT_ASKING = 48 << 10; // of compute capability 8.0
constexpr unsigned char UNTOUCHED = 0xFF;

[[noreturn]] void broken(const char *what) {
    std::fprintf(stderr, "emulated GPU: %s (block %u,%u, thread %u,%u)\n", what, blockIdx.x, blockIdx.y,
                 threadIdx.x, threadIdx.y);
    std::abort();
}

// ---- coroutines. swapcontext asks the kernel for the signal mask each time, which takes most of the time of
// a run; on x86-64 a change is a dozen instructions.
#ifdef __x86_64__
struct context_t {
    void *stack;
};
extern "C" void emulated_change(context_t *from, const context_t *to);
asm(R"(
emulated_change:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");
void change(context_t *from, const context_t *to) { emulated_change(from, to); }
// The first change to it finds six registers and the address of `entry`, on a stack aligned as at a call.
void prepare(context_t *c, char *stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(stack + bytes) / 16 * 16;
    void **p = reinterpret_cast<void **>(top) - 8;
    std::memset(p, 0, 8 * sizeof *p);
    p[6] = reinterpret_cast<void *>(entry);
    c->stack = p;
}
#else
using context_t = ucontext_t;
void change(context_t *from, context_t *to) { swapcontext(from, to); }
void prepare(context_t *c, char *stack, size_t bytes, void (*entry)()) {
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = bytes;
    makecontext(c, entry, 0);
}
#endif

// ---- the machine

enum class at { READY, BLOCK, WARP, END };

struct thread {
    context_t context;
    std::vector<char> stack;
    at where;
    dim3 index;
    unsigned shuffles; // so far; two sets of slots by turns, so that nobody is a shuffle ahead
};

struct machine {
    std::deque<thread> threads; // which are never moved: a context points into itself
    context_t scheduler;
    thread *now = nullptr;
    const std::function<void()> *body = nullptr;
    uint64_t slots[2][MOST_THREADS];
    int any[2];
    unsigned barriers = 0; // of the block so far
    bool descending = false;
    std::map<const void *, size_t> allowed; // dynamic shared memory, by kernel
};

machine &m() {
    static machine one;
    return one;
}

// A coroutine lives for ever: one run of the body, then back to the scheduler.
void thread_main() {
    for (;;) {
        (*m().body)();
        m().now->where = at::END;
        change(&m().now->context, &m().scheduler);
    }
}

void make_threads(size_t n) {
    while (m().threads.size() < n) {
        thread &t = m().threads.emplace_back();
        t.stack.resize(STACK);
        prepare(&t.context, t.stack.data(), STACK, thread_main);
    }
}

void resume(thread &t) {
    m().now = &t;
    threadIdx = t.index;
    change(&m().scheduler, &t.context);
}

// Runs a warp until all of its threads are at a barrier of the block, or at the end. Threads go on together
// that all wait for each other.
void run_warp(size_t first) {
    for (;;) {
        size_t waiting = 0;
        for (size_t i = 0; i < WARP; i++) {
            thread &t = m().threads[first + (m().descending ? WARP - 1 - i : i)];
            if (t.where == at::READY) resume(t);
            waiting += t.where == at::WARP;
        }
        if (waiting == 0) return;
        if (waiting < WARP) broken("not all threads of a warp came to meet the others");
        for (size_t i = 0; i < WARP; i++) m().threads[first + i].where = at::READY;
    }
}

bool release_block(size_t n) {
    size_t waiting = 0;
    for (size_t i = 0; i < n; i++) waiting += m().threads[i].where == at::BLOCK;
    if (waiting == 0) return false;
    if (waiting < n) broken("not all threads of a block came to a barrier");
    for (size_t i = 0; i < n; i++) m().threads[i].where = at::READY;
    m().barriers++;
    m().any[m().barriers % 2] = 0; // the next barrier's: all have read it, or they would not be here
    return true;
}

void run_block(size_t n) {
    for (size_t i = 0; i < n; i++) {
        thread &t = m().threads[i];
        t.where = at::READY;
        t.shuffles = 0;
        t.index = dim3(static_cast<unsigned>(i) % blockDim.x, static_cast<unsigned>(i) / blockDim.x, 0);
    }
    m().barriers = 0;
    m().any[0] = m().any[1] = 0;
    do {
        for (size_t w = 0; w < n; w += WARP) run_warp(m().descending ? n - WARP - w : w);
    } while (release_block(n));
    m().descending = !m().descending;
}

cudaError_t check_launch(const void *kernel, const cudaLaunchConfig_t *c) {
    size_t threads = static_cast<size_t>(c->blockDim.x) * c->blockDim.y * c->blockDim.z;
    bool grid =
        c->gridDim.x > 0 && c->gridDim.x <= INT32_MAX && c->gridDim.y > 0 && c->gridDim.y <= MOST_ROWS;
    bool shared = c->dynamicSmemBytes <= std::max(WITHOUT_ASKING, m().allowed[kernel]);
    return grid && shared && threads > 0 && threads <= MOST_THREADS && threads % WARP == 0
               ? cudaSuccess
               : cudaErrorInvalidConfiguration;
}

void check_shared(size_t used) {
    const unsigned char *p = reinterpret_cast<unsigned char *>(memory);
    for (size_t i = used; i < used + 4096; i++)
        if (p[i] != UNTOUCHED) broken("wrote past the end of its shared memory");
}

} // namespace

dim3 gridDim, blockDim, blockIdx, threadIdx;
float4 memory[(SHARED + 4096) / sizeof(float4)];

void emulated_wait(bool warp) {
    thread *t = m().now;
    t->where = warp ? at::WARP : at::BLOCK;
    if (warp) t->shuffles++;
    change(&t->context, &m().scheduler);
}

void *emulated_slots() { return m().slots[m().now->shuffles % 2]; }

int __syncthreads_or(int mine) {
    int *any = &m().any[m().barriers % 2];
    *any |= mine != 0;
    emulated_wait(false);
    return *any;
}

void emulated_allow(const void *kernel, size_t shared) {
    if (shared <= SHARED) m().allowed[kernel] = shared;
}

static void run_grid(const cudaLaunchConfig_t *c, const std::function<void()> &body) {
    size_t n = static_cast<size_t>(c->blockDim.x) * c->blockDim.y;
    make_threads(n);
    gridDim = c->gridDim, blockDim = c->blockDim, m().body = &body;
    for (unsigned y = 0; y < gridDim.y; y++)
        for (unsigned x = 0; x < gridDim.x; x++) {
            blockIdx = dim3(x, y, 0);
            if (c->dynamicSmemBytes > 0) std::memset(memory, UNTOUCHED, c->dynamicSmemBytes + 4096);
            run_block(n);
            if (c->dynamicSmemBytes > 0) check_shared(c->dynamicSmemBytes);
        }
}

cudaError_t emulated_launch(const void *kernel, const cudaLaunchConfig_t *c,
                            const std::function<void()> &body) {
    cudaError_t status = check_launch(kernel, c);
    if (status != cudaSuccess) return status;
    emulated_push(c->stream, [config = *c, body] {
        run_grid(&config, body);
        return true;
    });
    return cudaSuccess;
}

// ---- the runtime: device memory is memory; streams are in streams.cpp

const char *cudaGetErrorName(cudaError_t) { return "emulated"; }
const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaErrorMemoryAllocation ? "out of memory" : "the emulated GPU refused";
}
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = static_cast<size_t>(8) << 30;
    *free_bytes = *total / 2;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    constexpr size_t ALIGN = 256, MOST = static_cast<size_t>(1) << 32;
    if (bytes > MOST || posix_memalign(p, ALIGN, bytes) != 0) return cudaErrorMemoryAllocation;
    std::memset(*p, UNTOUCHED, bytes);
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    cudaDeviceSynchronize(); // as on a real one
    std::free(p);
    return cudaSuccess;
}
// ---- cuBLAS: its definition, column by column

const char *cublasGetStatusName(cublasStatus_t) { return "emulated"; }
const char *cublasGetStatusString(cublasStatus_t) { return "invalid value"; }
struct emulated_blas {
    cudaStream_t stream = nullptr;
};
cublasStatus_t cublasCreate(cublasHandle_t *h) {
    *h = new emulated_blas;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t h, cudaStream_t s) {
    h->stream = s;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode(cublasHandle_t, int) { return CUBLAS_STATUS_SUCCESS; }

static float element(const void *base, cudaDataType_t type, int64_t i) {
    return type == CUDA_R_32F ? static_cast<const float *>(base)[i]
                              : bf16_to_float(static_cast<const bf16 *>(base)[i]);
}

static void set_element(void *base, cudaDataType_t type, int64_t i, float x) {
    if (type == CUDA_R_32F)
        static_cast<float *>(base)[i] = x;
    else
        static_cast<bf16 *>(base)[i] = bf16_from_float(x);
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m,
                               int64_t n, int64_t k, const void *alpha, const void *a, cudaDataType_t a_type,
                               int64_t lda, const void *b, cudaDataType_t b_type, int64_t ldb,
                               const void *beta, void *c, cudaDataType_t c_type, int64_t ldc,
                               cublasComputeType_t, cublasGemmAlgo_t) {
    bool ta = op_a == CUBLAS_OP_T, tb = op_b == CUBLAS_OP_T;
    float by = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || a_type != b_type)
        return CUBLAS_STATUS_INVALID_VALUE;
    emulated_push(h->stream, [=] {
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                for (int64_t p = 0; p < k; p++)
                    sum += static_cast<double>(element(a, a_type, ta ? p + i * lda : i + p * lda)) *
                           element(b, b_type, tb ? j + p * ldb : p + j * ldb);
                float old = keep == 0 ? 0 : keep * element(c, c_type, i + j * ldc);
                set_element(c, c_type, i + j * ldc, static_cast<float>(by * sum + old));
            }
        return true;
    });
    return CUBLAS_STATUS_SUCCESS;
}
