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

#include "cuda_bf16.h"
#include "emulate.h"
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

struct copy {
    char *to;
    const void *from;
    size_t bytes;
    unsigned group;
};

struct thread {
    context_t context;
    std::vector<char> stack;
    at where;
    dim3 index;
    unsigned shuffles;       // so far; two sets of slots by turns, so that nobody is a shuffle ahead
    std::deque<copy> copies; // in the background, oldest first
    unsigned groups;         // of them that were ended
};

struct machine {
    std::deque<thread> threads; // which are never moved: a context points into itself
    context_t scheduler;
    thread *now = nullptr;
    const std::function<void()> *body = nullptr;
    char slots[2][MOST_THREADS * EMULATED_SLOT];
    int any[2];
    unsigned barriers = 0; // of the block so far
    bool descending = false;
    size_t shared = 0;                      // dynamic shared memory of the kernel that runs
    std::map<const void *, size_t> allowed; // dynamic shared memory, by kernel
};

machine one;
inline machine &m() { return one; }

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
        t.shuffles = t.groups = 0;
        t.index = dim3(static_cast<unsigned>(i) % blockDim.x, static_cast<unsigned>(i) / blockDim.x, 0);
    }
    m().barriers = 0;
    m().any[0] = m().any[1] = 0;
    do {
        for (size_t w = 0; w < n; w += WARP) run_warp(m().descending ? n - WARP - w : w);
    } while (release_block(n));
    for (size_t i = 0; i < n; i++)
        if (!m().threads[i].copies.empty()) broken("a copy in the background was not waited for");
    m().descending = !m().descending;
}

cudaError_t check_launch(const void *kernel, const cudaLaunchConfig_t *c) {
    size_t threads = static_cast<size_t>(c->blockDim.x) * c->blockDim.y * c->blockDim.z;
    bool grid = c->gridDim.x > 0 && c->gridDim.x <= INT32_MAX && c->gridDim.y > 0 &&
                c->gridDim.y <= MOST_ROWS && c->gridDim.z > 0 && c->gridDim.z <= MOST_ROWS;
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
alignas(128) float4 memory[(SHARED + 4096) / sizeof(float4)];

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

// ---- copies in the background

static void perform(const copy &c) {
    if (c.from)
        std::memcpy(c.to, c.from, c.bytes);
    else
        std::memset(c.to, 0, c.bytes);
}

void emulated_later(char *to, const void *from, size_t bytes) {
    m().now->copies.push_back({to, from, bytes, m().now->groups});
    if (m().descending) perform(m().now->copies.back());
}

void copies_commit() { m().now->groups++; }

void emulated_copies_wait(unsigned left) {
    thread *t = m().now;
    while (!t->copies.empty() && t->copies.front().group + left < t->groups) {
        if (!m().descending) perform(t->copies.front());
        t->copies.pop_front();
    }
}

[[noreturn]] void emulated_broken(const char *what) { broken(what); }
size_t emulated_shared() { return m().shared; }

void emulated_allow(const void *kernel, size_t shared) {
    if (shared <= SHARED) m().allowed[kernel] = shared;
}

static void run_grid(const cudaLaunchConfig_t *c, const std::function<void()> &body) {
    size_t n = static_cast<size_t>(c->blockDim.x) * c->blockDim.y;
    make_threads(n);
    gridDim = c->gridDim, blockDim = c->blockDim, m().body = &body;
    m().shared = c->dynamicSmemBytes;
    for (unsigned i = 0; i < gridDim.z * gridDim.y; i++)
        for (unsigned x = 0; x < gridDim.x; x++) {
            blockIdx = dim3(x, i % gridDim.y, i / gridDim.y);
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
