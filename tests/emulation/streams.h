// Streams of the machine of emulate.cpp.
#ifndef EMULATED_STREAMS_H
#define EMULATED_STREAMS_H

#include <functional>

#include "cuda_runtime_api.h"

// Queues work on a stream. It returns true when it is done; when it returns false the stream stands still and
// it is asked again later. What it needs is held by value: it runs when somebody waits, not before.
void emulated_push(cudaStream_t s, std::function<bool()> work);
// What a real GPU would have got on with meanwhile: a piece of work on every stream.
void emulated_progress();

// Moves the clock that timed events read. Only products take time.
void emulated_spend(float ms);

#endif
