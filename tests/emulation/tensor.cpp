// The instructions of ptx.cuh on the machine of emulate.cpp. Copies in the background arrive at once in every
// second block, and in the others only when they are waited for: a missing wait finds old bytes, and a tile
// that is filled while it is read finds new ones.
//
// Most of the time of a run is spent here: without sanitizers, as every address is looked at anyway.
#pragma GCC optimize("O3")
#define FAST __attribute__((no_sanitize("address", "undefined")))
#include "emulate.h"
#include "ptx.cuh"

namespace {

FAST unsigned me() { return threadIdx.x + threadIdx.y * blockDim.x; }
FAST char *shared_at(uint32_t at, size_t bytes) {
    if (at % bytes != 0) emulated_broken("a misaligned address in shared memory");
    if (at + bytes > emulated_shared()) emulated_broken("outside its shared memory");
    return reinterpret_cast<char *>(memory) + at;
}

void copy(uint32_t to, const void *from, bool there, size_t bytes) {
    if (there && reinterpret_cast<uintptr_t>(from) % bytes != 0)
        emulated_broken("a misaligned copy in the background");
    emulated_later(shared_at(to, bytes), there ? from : nullptr, bytes);
}

// What the lanes of a warp put down for each other.
struct operands {
    uint32_t a[4], b[2];
};
static_assert(sizeof(operands) <= EMULATED_SLOT, "");

FAST float as_float(uint32_t bits) {
    union {
        uint32_t u;
        float f;
    } x = {bits};
    return x.f;
}
FAST float lower(uint32_t pair) { return as_float(pair << 16); }
FAST float upper(uint32_t pair) { return as_float(pair & 0xFFFF0000u); }

// Slot `lane` of a warp's.
template <typename T> FAST T &slot_of(char *slots, unsigned lane) {
    return *reinterpret_cast<T *>(slots + lane * EMULATED_SLOT);
}

// The warp's slots, after each of its lanes has put down `mine`.
template <typename T> FAST char *exchange(const T &mine) {
    char *slots = static_cast<char *>(emulated_slots()) + (me() & ~31u) * EMULATED_SLOT;
    slot_of<T>(slots, me() & 31) = mine;
    emulated_wait(true);
    return slots;
}

// Row `row` of piece i, as lane 8i+row said.
FAST const char *piece_row(char *slots, unsigned i, unsigned row) {
    return shared_at(slot_of<uint32_t>(slots, 8 * i + row), 16);
}

} // namespace

uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(static_cast<const char *>(p) - reinterpret_cast<char *>(memory));
}
void copy_16(uint32_t to, const void *from, bool there) { copy(to, from, there, 16); }
void copy_4(uint32_t to, const void *from, bool there) { copy(to, from, there, 4); }

FAST void load_pieces(uint32_t (&r)[4], uint32_t row) {
    char *slots = exchange(row);
    unsigned lane = me() % 32;
    for (unsigned i = 0; i < 4; i++)
        r[i] = reinterpret_cast<const uint32_t *>(piece_row(slots, i, lane / 4))[lane % 4];
}

FAST void load_transposed(uint32_t (&r)[4], uint32_t row) {
    char *slots = exchange(row);
    unsigned lane = me() % 32;
    auto element = [&](unsigned i, unsigned row_of_piece) {
        return reinterpret_cast<const bf16 *>(piece_row(slots, i, row_of_piece))[lane / 4];
    };
    for (unsigned i = 0; i < 4; i++)
        r[i] = element(i, lane % 4 * 2) | static_cast<uint32_t>(element(i, lane % 4 * 2 + 1)) << 16;
}

// Rows lane/4 and lane/4 + 8, columns 2 (lane%4) and the next.
FAST void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    char *slots = exchange(operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    unsigned lane = me() % 32;
    for (unsigned t = 0; t < 4; t++)
        for (unsigned k8 = 0; k8 < 2; k8++)
            for (unsigned e = 0; e < 4; e++) {
                uint32_t x = slot_of<operands>(slots, lane / 4 * 4 + t).a[e / 2 + 2 * k8];
                uint32_t y = slot_of<operands>(slots, (lane % 4 * 2 + e % 2) * 4 + t).b[k8];
                c[e] += lower(x) * lower(y) + upper(x) * upper(y);
            }
}

void store_shared_pair(uint32_t to, uint32_t pair) { std::memcpy(shared_at(to, 4), &pair, 4); }
uint4 load_shared_16(uint32_t from) {
    uint4 v;
    std::memcpy(&v, shared_at(from, 16), 16);
    return v;
}
