// Instructions that CUDA C++ has no words for, each by itself: shared memory filled in the background, and
// products of small matrices on the tensor cores. Whole warps call the collective ones. Layouts: PTX ISA,
// "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix". tests/emulation/cuda/ptx.cuh
// says the same in plain C++.
//
// Lane l is at row l / 4 and column pair l % 4 of a piece of 8 x 8. A register holds two neighbouring bf16,
// the left one in the lower half.
#ifndef SOLAR_CUDA_PTX_CUH
#define SOLAR_CUDA_PTX_CUH

#include <cstdint>

// Where in shared memory.
__device__ inline uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies 16 (4) bytes to shared memory, or clears them if there is nothing at `from`; both addresses are
// multiples of as many. Done after copies_wait.
__device__ inline void copy_16(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
__device__ inline void copy_4(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(there ? 4 : 0)
                 : "memory");
}
// Ends a group of copies of this thread; waits until at most `LEFT` of its groups are under way.
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> __device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four pieces of 8 x 8 bf16: lanes 8i .. 8i+7 say where the rows of piece i are, 16 bytes each.
__device__ inline void load_pieces(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
// The same, each piece transposed.
__device__ inline void load_transposed(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// c[16,8] += a[16,16] b[16,8], fp32 sums. a: pieces (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15),
// (8-15, 8-15). b: pieces of its transpose, rows of b 0-7 and 8-15. c: two floats of rows 0-7, two of 8-15.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as bf16, to nearest.
__device__ inline uint32_t pack_pair(float left, float right) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(right), "f"(left));
    return r;
}

// 2^x within 2 units in the last place; subnormal results are 0.
__device__ inline float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline void store_shared_pair(uint32_t to, uint32_t pair) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pair) : "memory");
}
__device__ inline uint4 load_shared_16(uint32_t from) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

#endif
