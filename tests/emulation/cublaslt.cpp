// cuBLASLt for the machine of emulate.cpp: its definition, column by column, and a look at how it is called.
// An algorithm remembers what it was chosen for and refuses anything else; the first of a list takes the most
// time of the emulated clock.
#include <cstring>

#include "cublasLt.h"
#include "dtype.h"
#include "streams.h"

namespace {

constexpr int LISTED = 3; // algorithms for every product
constexpr size_t NEEDS = 4096;

float element(const void *base, cudaDataType_t type, int64_t i) {
    return type == CUDA_R_32F ? static_cast<const float *>(base)[i]
                              : bf16_to_float(static_cast<const bf16 *>(base)[i]);
}

void set_element(void *base, cudaDataType_t type, int64_t i, float x) {
    if (type == CUDA_R_32F)
        static_cast<float *>(base)[i] = x;
    else
        static_cast<bf16 *>(base)[i] = bf16_from_float(x);
}

bool aligned(const void *p, uint32_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

bool same(const cublasLtMatrixLayoutOpaque_t &x, const cublasLtMatrixLayoutOpaque_t &y) {
    return x.type == y.type && x.rows == y.rows && x.columns == y.columns && x.ld == y.ld;
}

bool sound(const cublasLtMatrixLayoutOpaque_t &l) {
    return l.rows > 0 && l.columns > 0 && l.ld >= static_cast<int64_t>(l.rows);
}

// Rows and columns of op(x).
struct size {
    int64_t rows, columns;
};
size size_of(const cublasLtMatrixLayoutOpaque_t &l, cublasOperation_t op) {
    auto rows = static_cast<int64_t>(l.rows), columns = static_cast<int64_t>(l.columns);
    return op == CUBLAS_OP_T ? size{columns, rows} : size{rows, columns};
}

bool fits(const cublasLtMatmulDescOpaque_t &d, const cublasLtMatrixLayoutOpaque_t &a,
          const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c) {
    size x = size_of(a, d.op_a), y = size_of(b, d.op_b), z = size_of(c, CUBLAS_OP_N);
    return d.compute == CUBLAS_COMPUTE_32F && d.scale == CUDA_R_32F && sound(a) && sound(b) && sound(c) &&
           a.type == b.type && x.rows == z.rows && x.columns == y.rows && y.columns == z.columns &&
           (c.type == CUDA_R_32F || c.type == a.type);
}

bool chosen_for(const cublasLtMatmulAlgo_t &x, const cublasLtMatmulDescOpaque_t &d,
                const cublasLtMatrixLayoutOpaque_t &a, const cublasLtMatrixLayoutOpaque_t &b,
                const cublasLtMatrixLayoutOpaque_t &c) {
    return x.how.op_a == d.op_a && x.how.op_b == d.op_b && same(x.a, a) && same(x.b, b) && same(x.c, c);
}

// The second of a list is named, but cannot be used.
bool usable(const cublasLtMatmulAlgo_t &x, const void *a, const void *b, const void *c, const void *workspace,
            size_t bytes) {
    const uint32_t *align = x.wish.align;
    return x.number != 1 && aligned(a, align[0]) && aligned(b, align[1]) && aligned(c, align[2]) &&
           aligned(c, align[3]) && workspace && bytes >= NEEDS && bytes <= x.wish.workspace;
}

void multiply(const cublasLtMatmulDescOpaque_t &how, float by, const void *a,
              const cublasLtMatrixLayoutOpaque_t &la, const void *b, const cublasLtMatrixLayoutOpaque_t &lb,
              float keep, void *c, const cublasLtMatrixLayoutOpaque_t &lc) {
    bool ta = how.op_a == CUBLAS_OP_T, tb = how.op_b == CUBLAS_OP_T;
    size s = size_of(la, how.op_a);
    for (int64_t j = 0; j < static_cast<int64_t>(lc.columns); j++)
        for (int64_t i = 0; i < s.rows; i++) {
            double sum = 0;
            for (int64_t p = 0; p < s.columns; p++)
                sum += static_cast<double>(element(a, la.type, ta ? p + i * la.ld : i + p * la.ld)) *
                       element(b, lb.type, tb ? j + p * lb.ld : p + j * lb.ld);
            float old = keep == 0 ? 0 : keep * element(c, lc.type, i + j * lc.ld);
            set_element(c, lc.type, i + j * lc.ld, static_cast<float>(by * sum + old));
        }
}

template <typename T> cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

const char *cublasLtGetStatusName(cublasStatus_t) { return "emulated"; }
const char *cublasLtGetStatusString(cublasStatus_t) { return "invalid value"; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = nullptr;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t d, cublasComputeType_t compute,
                                      cudaDataType_t scale) {
    *d = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t bytes) {
    return take(what == CUBLASLT_MATMUL_DESC_TRANSA ? &d->op_a : &d->op_b, value, bytes);
}
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t l, cudaDataType_t type, uint64_t rows,
                                        uint64_t columns, int64_t ld) {
    *l = {type, rows, columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t p) {
    *p = {0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t bytes) {
    if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return take(&p->workspace, value, bytes);
    if (what == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return take(&p->reduction, value, bytes);
    return take(&p->align[what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d_out,
                                              cublasLtMatmulPreference_t wish, int most,
                                              cublasLtMatmulHeuristicResult_t *found, int *count) {
    *count = 0;
    if (!fits(*d, *a, *b, *c) || !same(*c, *d_out)) return CUBLAS_STATUS_INVALID_VALUE;
    if (wish->reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE || wish->workspace < NEEDS)
        return CUBLAS_STATUS_NOT_SUPPORTED; // sums of bf16 parts are not what the tests want
    for (; *count < most && *count < LISTED; ++*count)
        found[*count] = {{*count, *d, *a, *b, *c, *wish},
                         NEEDS,
                         *count == 1 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS,
                         1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d_out,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *x, void *workspace,
                              size_t bytes, cudaStream_t stream) {
    float by = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
    if (!fits(*d, *la, *lb, *lc) || !same(*lc, *ld) || c != d_out || !chosen_for(*x, *d, *la, *lb, *lc) ||
        !usable(*x, a, b, c, workspace, bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    emulated_push(stream, [=, how = *d, la = *la, lb = *lb, lc = *lc, number = x->number] {
        multiply(how, by, a, la, b, lb, keep, d_out, lc);
        emulated_spend(static_cast<float>(LISTED - number));
        return true;
    });
    return CUBLAS_STATUS_SUCCESS;
}
