// Streams and events, as lazy as the rules allow: nothing that is queued happens before somebody waits for
// it, and then only what that needs. So work that should have waited for an event, and does not, comes too
// early or too late and shows in the results, where a real GPU would mostly be lucky.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <memory>
#include <sched.h>
#include <set>
#include <thread>

#include "streams.h"

struct emulated_stream {
    std::deque<std::function<bool()>> work;
    bool running = false;
};

namespace {

struct marks {
    std::atomic<unsigned> recorded = 0, reached = 0; // how often
    float at = 0;                                    // on the clock
};

std::list<emulated_stream *> &streams() {
    static std::list<emulated_stream *> all;
    return all;
}

float &now() {
    static float ms = 0;
    return ms;
}

std::set<const char *> &pinned() {
    static std::set<const char *> all;
    return all;
}

// One piece of work; false: there is none, or it has to wait.
bool step(emulated_stream *s) {
    if (s->work.empty() || s->running) return false;
    s->running = true; // work may wait for other streams, and so come here again
    bool done = s->work.front()();
    s->running = false;
    if (done) s->work.pop_front();
    return done;
}

// Runs what `until` needs: one stream as far as it goes, then of the others a piece each.
template <typename F> void wait(emulated_stream *s, F until) {
    while (!until()) {
        if (s && step(s)) continue;
        bool moved = false;
        for (auto i = streams().rbegin(); i != streams().rend(); ++i) moved |= step(*i);
        if (!moved) sched_yield(); // others have to come, from another process
    }
}

} // namespace

struct emulated_event {
    std::shared_ptr<marks> m = std::make_shared<marks>();
};

void emulated_push(cudaStream_t s, std::function<bool()> work) {
    if (!s) {
        std::fprintf(stderr, "emulated GPU: work on the default stream, which waits for all others\n");
        std::abort();
    }
    s->work.push_back(std::move(work));
}

// Only the thread that made the streams does what is on them; another may ask.
void emulated_progress() {
    static const std::thread::id first = std::this_thread::get_id();
    if (std::this_thread::get_id() != first) return;
    for (auto i = streams().rbegin(); i != streams().rend(); ++i) step(*i);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -1;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned, int) {
    emulated_progress(); // so that it knows its thread
    *s = new emulated_stream;
    streams().push_back(*s);
    return cudaSuccess;
}
// Asked often enough, it gets done.
cudaError_t cudaStreamQuery(cudaStream_t s) {
    if (!step(s)) emulated_progress();
    return s->work.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    cudaStreamSynchronize(s);
    streams().remove(s);
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    wait(s, [=] { return s->work.empty(); });
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    for (emulated_stream *s : streams()) cudaStreamSynchronize(s);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new emulated_event;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    auto m = e->m;
    unsigned mine = ++m->recorded;
    emulated_push(s, [=] {
        m->reached = mine, m->at = now();
        return true;
    });
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    auto m = e->m;
    unsigned mine = m->recorded;
    emulated_push(s, [=] { return m->reached >= mine; });
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    emulated_progress();
    return e->m->reached == e->m->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    wait(nullptr, [=] { return e->m->reached == e->m->recorded; });
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    if (cudaEventQuery(from) != cudaSuccess || cudaEventQuery(to) != cudaSuccess) return cudaErrorNotReady;
    *ms = to->m->at - from->m->at;
    return cudaSuccess;
}
void emulated_spend(float ms) { now() += ms; }

cudaError_t cudaHostRegister(void *p, size_t, unsigned) {
    return pinned().insert(static_cast<char *>(p)).second ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaHostUnregister(void *p) {
    return pinned().erase(static_cast<char *>(p)) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind, cudaStream_t s) {
    emulated_push(s, [=] {
        std::memcpy(to, from, bytes);
        return true;
    });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
    return cudaMemset2DAsync(to, bytes, value, bytes, 1, s);
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t s) {
    if (pitch < width) return cudaErrorInvalidValue;
    emulated_push(s, [=] {
        for (size_t i = 0; i < height; i++) std::memset(static_cast<char *>(to) + i * pitch, value, width);
        return true;
    });
    return cudaSuccess;
}
