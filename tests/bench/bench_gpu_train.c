// Speed of the whole training step on one GPU: bench_gpu_train [KEY=VALUE]...
//
//   layers=auto|N   auto: as many as fit, of 48, 40, 32, 24, 16, 12, 8, 4, 2, 1
//   dtype=bf16|fp32, batch=1 (sequences of a micro-batch), micro=4 (micro-batches of a step), seconds=20
//   recompute=none|selective|full, moments=fp32|bf16|int8, grads=fp32|bf16
//   hidden=4096 ffn=14336 heads=32 kv=8 vocab=32000 seq=4096: the shape of SOLAR's layers
//
// One process, random weights and tokens, AdamW with clipping: what `solar train` does between two steps. MFU
// counts 6N + 12 L h s FLOP a token (all pairs of tokens; N: all parameters) and, beside it, 6N + 6 L h s
// (causal), of the peak that slurm/machines.yaml has for this GPU; without one there it is left out. "queued
// in": the share of a step that the host needs to hand it to the GPU; as long as it is well below 100 % the
// GPU does not wait for the host. Exit status: 0; 1: failed; 77: there is no GPU.
#include "bench_model.h"

#include "gpu.h"
#include "log.h"
#include "machine.h"
#include "measures.h"

enum { NO_GPU = 77, MOST = 2000, BLOCK = 1 << 22 };

typedef struct options {
    model m;
    dtype dt;
    int micro;
    double seconds;
    part_shape shape;
} options;

static void number(const char *word, const char *name, int64_t *to) {
    size_t n = strlen(name);
    if (strncmp(word, name, n) == 0 && word[n] == '=') *to = atoll(word + n + 1);
}

static bool is(const char *word, const char *key, const char *value) {
    size_t n = strlen(key);
    return strncmp(word, key, n) == 0 && word[n] == '=' && strcmp(word + n + 1, value) == 0;
}

static options read_options(int argc, char **argv) {
    options o = {.m = {"solar", 4096, 0, 32, 8, 14336, 32000, 4096, 1, true}, .dt = DT_BF16};
    int64_t micro = 4, seconds = 20;
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            int64_t *to;
        } known[] = {{"layers", &o.m.layers}, {"batch", &o.m.batch},   {"micro", &micro},
                     {"seconds", &seconds},   {"hidden", &o.m.hidden}, {"ffn", &o.m.ffn},
                     {"heads", &o.m.heads},   {"kv", &o.m.kv_heads},   {"vocab", &o.m.vocab},
                     {"seq", &o.m.seq}};
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) number(argv[i], known[k].name, known[k].to);
        if (is(argv[i], "dtype", "fp32")) o.dt = DT_F32;
        if (is(argv[i], "recompute", "selective")) o.shape.recompute = RECOMPUTE_SELECTIVE;
        if (is(argv[i], "recompute", "full")) o.shape.recompute = RECOMPUTE_FULL;
        if (is(argv[i], "moments", "bf16")) o.shape.moments = MOMENTS_BF16;
        if (is(argv[i], "moments", "int8")) o.shape.moments = MOMENTS_INT8;
        if (is(argv[i], "grads", "bf16")) o.shape.grads = DT_BF16;
    }
    o.micro = (int)micro;
    o.seconds = (double)seconds;
    return o;
}

// ---- the model

// Numbers of about the size of a model's, drawn once and repeated: zeros would cost a GPU less power.
static err *random_block(bench *b, void **out) {
    err *e = NULL;
    size_t bytes = (size_t)BLOCK * dtype_size(b->dt);
    uint64_t random = 1;
    char *host = malloc(bytes);
    if (!host) FAIL(ERR_SYSTEM, "no memory for random weights");
    for (int64_t i = 0; i < BLOCK; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        float x = ((float)(random >> 40) / (float)(1 << 24) - 0.5f) * 0.06f;
        if (b->dt == DT_F32)
            ((float *)(void *)host)[i] = x;
        else
            ((bf16 *)(void *)host)[i] = bf16_from_float(x);
    }
    TRY(b->dev->ops->alloc(b->dev, bytes, out));
    b->dev->ops->upload(b->dev, *out, host, bytes);
done:
    free(host);
    return e;
}

static err *fill_weights(bench *b) {
    err *e = NULL;
    void *block = NULL;
    size_t w = dtype_size(b->dt);
    TRY(random_block(b, &block));
    for (int i = 0; i < b->part->weights; i++)
        for (int64_t at = 0, n = b->part->weight[i].n; at < n; at += BLOCK)
            b->dev->ops->copy(b->dev, (char *)b->part->weight[i].w + (size_t)at * w, block,
                              (size_t)(n - at < BLOCK ? n - at : BLOCK) * w);
    TRY(b->dev->ops->sync(b->dev));
done:
    if (block) b->dev->ops->free(b->dev, block);
    return e;
}

static err *open_gpu(bench *b, const options *o, int64_t layers) {
    err *e = NULL;
    double seconds;
    *b = (bench){.m = o->m, .dt = o->dt, .micro = o->micro};
    b->m.layers = layers;
    TRY(cuda_open(0, &b->dev));
    TRY(open_model(b, &o->shape));
    TRY(fill_weights(b));
    for (int i = 0; i < 2; i++) TRY(one_step(b, &seconds)); // memory is touched, algorithms are chosen
done:
    return e;
}

static err *open_largest(bench *b, const options *o) {
    static const int64_t sizes[] = {48, 40, 32, 24, 16, 12, 8, 4, 2, 1};
    err *e = NULL;
    if (o->m.layers) return open_gpu(b, o, o->m.layers);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        err_free(e);
        if (!(e = open_gpu(b, o, sizes[i]))) return NULL;
        close_bench(b);
        *b = (bench){0};
    }
    return e;
}

// ---- the figures

static double peak_of(const bench *b, const gpu_info *g) {
    machine m;
    const char *name = machine_of_gpu(g->name);
    err *e = name ? machine_load(NULL, name, &m) : NULL;
    if (e) fprintf(stderr, "bench_gpu_train: %s\n", err_text(e));
    bool known = name && !e;
    err_free(e);
    return known ? m.peak[b->dt] : 0;
}

static void print_speed(const bench *b, const gpu_info *g, double speed, double queued, int steps) {
    size_t used, total;
    char text[32];
    token_flop f = token_flop_of(b->spec, b->m.seq);
    double peak = peak_of(b, g);
    b->dev->ops->memory(b->dev, &used, &total);
    format_bytes(text, (double)used);
    printf("solar %lld layers %s, %d x %lld x %lld tokens a step: %.0f tokens/s, %.1f TFLOP/s (all pairs)",
           (long long)b->m.layers, b->dt == DT_F32 ? "fp32" : "bf16", b->micro, (long long)b->m.batch,
           (long long)b->m.seq, speed, speed * f.all_pairs / 1e12);
    if (peak > 0)
        printf(", MFU %.1f %% (all pairs), %.1f %% (causal)", 100 * speed * f.all_pairs / peak,
               100 * speed * f.causal / peak);
    printf(", %s, queued in %.1f %% of the step (median of %d steps)\n", text, 100 * queued, steps);
}

static err *time_steps(bench *b, double budget) {
    err *e = NULL;
    static double rate[MOST], queue[MOST];
    double seconds, tokens = (double)(b->m.batch * b->micro * b->m.seq);
    gpu_info g;
    TRY(cuda_info(b->dev, &g));
    double end = now() + budget;
    int n = 0;
    for (; n < MOST && (n < 3 || now() < end); n++) {
        const action_time *last = &b->trainer->times[b->trainer->actions - 1];
        TRY(one_step(b, &seconds));
        rate[n] = tokens / seconds;
        queue[n] = (last->end - b->trainer->began) / seconds;
    }
    print_speed(b, &g, median(rate, n), median(queue, n), n);
done:
    return e;
}

int main(int argc, char **argv) {
    options o = read_options(argc, argv);
    bench b = {0};
    if (cuda_count() == 0) {
        printf("bench_gpu_train: skipped: there is no GPU\n");
        return NO_GPU;
    }
    MPI_Init(&argc, &argv);
    err *e = open_largest(&b, &o);
    if (!e) e = time_steps(&b, o.seconds);
    close_bench(&b);
    MPI_Finalize();
    if (!e) return 0;
    fprintf(stderr, "bench_gpu_train: %s\n", err_text(e));
    err_free(e);
    return 1;
}
