// Matrix products by cuBLAS, which thinks in columns: what is stored row by row as [r,c] is, column by
// column, the transpose [c,r]. So C^T[n,m] = op(B)^T op(A)^T is asked for: B comes first, and the flags stay
// as they are. cublasGemmEx looks at every address and leading dimension itself, so that odd ones are
// allowed.
#include "common.cuh"

static cudaDataType_t data_type(dtype dt) { return dt == DT_F32 ? CUDA_R_32F : CUDA_R_16BF; }
static cublasOperation_t operation(bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

static void clear_c(cuda_device *c, const product *p) {
    size_t width = dtype_size(p->cdt);
    cuda_check(c, "product",
               cudaMemset2DAsync(p->c, static_cast<size_t>(p->ldc) * width, 0,
                                 static_cast<size_t>(p->n) * width, static_cast<size_t>(p->m), c->stream));
}

static void blas_check(cuda_device *c, const product *p, cublasStatus_t status) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cuda_fail(c, err_new(ERR_SYSTEM, "GPU %d: product of [%lld,%lld] and [%lld,%lld]: %s (%s)", c->index,
                         static_cast<long long>(p->m), static_cast<long long>(p->k),
                         static_cast<long long>(p->k), static_cast<long long>(p->n),
                         cublasGetStatusName(status), cublasGetStatusString(status)));
}

// CUBLAS_COMPUTE_32F: fp32 sums; fp32 factors are not shortened to TF32. With beta 0 C is not read.
void cuda_product(device *d, const product *p) {
    cuda_device *c = cuda_enter(d);
    const float alpha = 1, beta = p->accumulate ? 1 : 0;
    if (p->m <= 0 || p->n <= 0) return;
    if (p->k <= 0) {
        if (!p->accumulate) clear_c(c, p);
        return;
    }
    blas_check(c, p,
               cublasGemmEx_64(c->blas, operation(p->trans_b), operation(p->trans_a), p->n, p->m, p->k,
                               &alpha, p->b, data_type(p->dt), p->ldb, p->a, data_type(p->dt), p->lda, &beta,
                               p->c, data_type(p->cdt), p->ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}
