// Matrix products by cuBLASLt, which thinks in columns: what is stored row by row as [r,c] is, column by
// column, the transpose [c,r]. So C^T[n,m] = op(B)^T op(A)^T is asked for: B comes first, and the flags stay
// as they are.
//
// cuBLASLt names several algorithms for a product, in the order in which it expects them to be fast. Which is
// taken is found once for each shape and kept. The first named is taken, so that another run gives the same
// bits; with SOLAR_CUDA_PRODUCTS=measure all of them are timed and the fastest is taken, which may be another
// one in the next run.
#include <cstdlib>
#include <new>

#include <cublasLt.h>

#include "common.cuh"

constexpr size_t WORKSPACE = 32 << 20; // what cuBLAS recommends for Hopper
constexpr int KEPT = 256, PROBES = 8;  // shapes that are kept; places where one of them may be
constexpr int CANDIDATES = 8, TURNS = 3;
constexpr int64_t ALIGNED = 16; // bytes: more than that makes no difference

// All that a choice depends on.
struct product_shape {
    int64_t m, n, k, lda, ldb, ldc, types, flags, align_a, align_b, align_c;
};

struct choice {
    product_shape shape;
    cublasLtMatmulAlgo_t algorithm;
    bool made;
};

struct products {
    cublasLtHandle_t blas;
    void *workspace;
    cudaEvent_t begin, end; // only if algorithms are timed
    bool measure;
    choice kept[KEPT];
};

// ---- opening

static err *blas_try(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) return nullptr;
    return err_new(ERR_SYSTEM, "%s: %s (%s)", what, cublasLtGetStatusName(status),
                   cublasLtGetStatusString(status));
}

static err *read_setting(bool *measure) {
    const char *text = std::getenv("SOLAR_CUDA_PRODUCTS");
    *measure = text && std::strcmp(text, "measure") == 0;
    if (!text || *measure || std::strcmp(text, "first") == 0) return nullptr;
    return err_new(ERR_USAGE, "SOLAR_CUDA_PRODUCTS is \"%s\": expected first or measure", text);
}

err *cuda_products_open(cuda_device *c) {
    products *x = c->products = new (std::nothrow) products();
    if (!x) return err_new(ERR_SYSTEM, "no memory for the products of GPU %d", c->index);
    err *e = read_setting(&x->measure);
    if (!e) e = cuda_try(cudaMalloc(&x->workspace, WORKSPACE), "memory for cuBLAS");
    if (!e) e = blas_try(cublasLtCreate(&x->blas), "starting cuBLAS");
    if (!e && x->measure) e = cuda_try(cudaEventCreate(&x->begin), "a clock");
    if (!e && x->measure) e = cuda_try(cudaEventCreate(&x->end), "a clock");
    return e;
}

void cuda_products_close(cuda_device *c) {
    products *x = c->products;
    if (!x) return;
    if (x->begin) cudaEventDestroy(x->begin);
    if (x->end) cudaEventDestroy(x->end);
    if (x->blas) cublasLtDestroy(x->blas);
    if (x->workspace) cudaFree(x->workspace);
    delete x;
}

// ---- how cuBLASLt is told of a product

static cudaDataType_t data_type(dtype dt) { return dt == DT_F32 ? CUDA_R_32F : CUDA_R_16BF; }
static cublasOperation_t operation(bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

static int64_t alignment(const void *p) {
    int64_t at = static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % ALIGNED);
    return at == 0 ? ALIGNED : at & -at;
}

static product_shape shape_of(const product *p) {
    int64_t flags = p->trans_a | p->trans_b << 1 | p->accumulate << 2;
    return {p->m,
            p->n,
            p->k,
            p->lda,
            p->ldb,
            p->ldc,
            p->dt | p->cdt << 8,
            flags,
            alignment(p->a),
            alignment(p->b),
            alignment(p->c)};
}

// The same product in the words of cuBLASLt. Its descriptions live here, on the stack.
struct description {
    cublasLtMatmulDescOpaque_t how;
    cublasLtMatrixLayoutOpaque_t a, b, c;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

    void keep(cublasStatus_t s) {
        if (status == CUBLAS_STATUS_SUCCESS) status = s;
    }
    void layout(cublasLtMatrixLayoutOpaque_t *to, dtype dt, bool transposed, int64_t rows, int64_t columns,
                int64_t ld) {
        keep(cublasLtMatrixLayoutInit(to, data_type(dt), static_cast<uint64_t>(transposed ? rows : columns),
                                      static_cast<uint64_t>(transposed ? columns : rows), ld));
    }
    // CUBLAS_COMPUTE_32F: fp32 sums; fp32 factors are not shortened to TF32.
    explicit description(const product *p) {
        cublasOperation_t first = operation(p->trans_b), second = operation(p->trans_a);
        keep(cublasLtMatmulDescInit(&how, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        keep(cublasLtMatmulDescSetAttribute(&how, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
        keep(cublasLtMatmulDescSetAttribute(&how, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
        layout(&a, p->dt, p->trans_a, p->m, p->k, p->lda);
        layout(&b, p->dt, p->trans_b, p->k, p->n, p->ldb);
        layout(&c, p->cdt, false, p->m, p->n, p->ldc);
    }
};

// Sums in pieces are added in fp32 and in a fixed order, or not cut at all. // is known of the addresses.
static cublasStatus_t ask(const products *x, const product_shape &s, description &d, int most,
                          cublasLtMatmulHeuristicResult_t *found, int *count) {
    cublasLtMatmulPreferenceOpaque_t wish;
    const size_t workspace = WORKSPACE;
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, a = static_cast<uint32_t>(s.align_a),
                   b = static_cast<uint32_t>(s.align_b), c = static_cast<uint32_t>(s.align_c);
    auto want = [&](cublasLtMatmulPreferenceAttributes_t what, const void *value, size_t bytes) {
        d.keep(cublasLtMatmulPreferenceSetAttribute(&wish, what, value, bytes));
    };
    d.keep(cublasLtMatmulPreferenceInit(&wish));
    want(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    want(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
    want(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b, sizeof b); // B comes first
    want(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a, sizeof a);
    want(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c);
    want(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c);
    if (d.status != CUBLAS_STATUS_SUCCESS) return d.status;
    return cublasLtMatmulAlgoGetHeuristic(x->blas, &d.how, &d.b, &d.a, &d.c, &d.c, &wish, most, found, count);
}

// With beta 0 C is not read.
static cublasStatus_t multiply(const cuda_device *c, description &d, const product *p,
                               const cublasLtMatmulAlgo_t *algorithm) {
    const float alpha = 1, beta = p->accumulate ? 1 : 0;
    return cublasLtMatmul(c->products->blas, &d.how, &alpha, p->b, &d.b, p->a, &d.a, &beta, p->c, &d.c, p->c,
                          &d.c, algorithm, c->products->workspace, WORKSPACE, c->stream);
}

// ---- choosing

// Milliseconds of TURNS runs after one that is not counted; a negative number if it cannot run.
static float time_of(cuda_device *c, description &d, const product *p,
                     const cublasLtMatmulAlgo_t *algorithm) {
    products *x = c->products;
    float ms = -1;
    for (int i = 0; i <= TURNS; i++) {
        if (i == 1) cuda_check(c, "product", cudaEventRecord(x->begin, c->stream));
        if (multiply(c, d, p, algorithm) != CUBLAS_STATUS_SUCCESS) return -1;
    }
    cuda_check(c, "product", cudaEventRecord(x->end, c->stream));
    cuda_check(c, "product", cudaEventSynchronize(x->end));
    cuda_check(c, "product", cudaEventElapsedTime(&ms, x->begin, x->end));
    return ms;
}

// The fastest of those found; the first of equals. A C that is added to is saved meanwhile: the only time
// that a product allocates.
static int fastest(cuda_device *c, description &d, const product *p,
                   const cublasLtMatmulHeuristicResult_t *found, int count) {
    size_t bytes = static_cast<size_t>((p->m - 1) * p->ldc + p->n) * dtype_size(p->cdt);
    void *saved = nullptr;
    int best = 0;
    float least = -1;
    if (p->accumulate) {
        cudaError_t status = cudaMalloc(&saved, bytes);
        cuda_check(c, "product, memory to measure it", status);
        if (status != cudaSuccess) return 0;
        cuda_check(c, "product", cudaMemcpyAsync(saved, p->c, bytes, cudaMemcpyDeviceToDevice, c->stream));
    }
    for (int i = 0; i < count; i++) {
        float ms = time_of(c, d, p, &found[i].algo);
        if (ms >= 0 && (least < 0 || ms < least)) least = ms, best = i;
    }
    if (saved) {
        cuda_check(c, "product", cudaMemcpyAsync(p->c, saved, bytes, cudaMemcpyDeviceToDevice, c->stream));
        cuda_check(c, "product", cudaStreamSynchronize(c->stream));
        cuda_check(c, "product", cudaFree(saved));
    }
    return best;
}

static cublasStatus_t choose(cuda_device *c, const product_shape &s, description &d, const product *p,
                             cublasLtMatmulAlgo_t *to) {
    products *x = c->products;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0;
    cublasStatus_t status = ask(x, s, d, x->measure ? CANDIDATES : 1, found, &count);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    int able = 0;
    for (int i = 0; i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS) found[able++] = found[i];
    count = able;
    if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    *to = found[x->measure && count > 1 ? fastest(c, d, p, found, count) : 0].algo;
    return status;
}

// Where the choice for a shape is, or is to be put: the first of its places that holds it or is free, else
// the first, whose choice is forgotten.
static choice *place_of(products *x, const product_shape &s) {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a over numbers
    int64_t field[sizeof s / sizeof(int64_t)];
    std::memcpy(field, &s, sizeof s);
    for (int64_t f : field) hash = (hash ^ static_cast<uint64_t>(f)) * 0x100000001b3u, hash ^= hash >> 29;
    choice *first = &x->kept[hash % KEPT];
    for (uint64_t i = 0; i < PROBES; i++) {
        choice *one = &x->kept[(hash + i) % KEPT];
        if (!one->made || std::memcmp(&one->shape, &s, sizeof s) == 0) return one;
    }
    first->made = false;
    return first;
}

// ---- the op

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
                         cublasLtGetStatusName(status), cublasLtGetStatusString(status)));
}

void cuda_product(device *d, const product *p) {
    cuda_device *c = cuda_enter(d);
    if (p->m <= 0 || p->n <= 0) return;
    if (p->k <= 0) {
        if (!p->accumulate) clear_c(c, p);
        return;
    }
    description words(p);
    product_shape shape = shape_of(p);
    choice *one = place_of(c->products, shape);
    cublasStatus_t status = words.status;
    if (status == CUBLAS_STATUS_SUCCESS && !one->made) {
        status = choose(c, shape, words, p, &one->algorithm);
        one->shape = shape, one->made = status == CUBLAS_STATUS_SUCCESS;
    }
    if (status == CUBLAS_STATUS_SUCCESS) status = multiply(c, words, p, &one->algorithm);
    blas_check(c, p, status);
}
