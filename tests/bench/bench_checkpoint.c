// bench_checkpoint DIR GIGABYTES ROUNDS [--tensors]: saves and loads a model of random weights with its
// optimizer state, in fp32, and prints one line a measurement: "name value unit". Medians of ROUNDS. Nothing
// of training goes on beside it. --tensors: only prints the shape of every tensor. tests/bench/checkpoint.sh
// compares the figures.
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "engine.h"
#include "fsutil.h"
#include "life.h"
#include "log.h"
#include "manifest.h"
#include "weights.h"
#include "xxh3.h"

enum { HIDDEN = 1024, FFN = 2816, HEADS = 16, VOCAB = 16384, MOST_ROUNDS = 32 };
static const char config_json[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d, "
    "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
    "\"num_key_value_heads\": %d, \"vocab_size\": %d, \"max_position_embeddings\": 64, \"rms_norm_eps\": "
    "1e-5, "
    "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": true, "
    "\"initializer_range\": 0.02, \"torch_dtype\": \"float32\"}";

typedef struct bench {
    world w;
    blueprint b;
    mesh m;
    device *dev;
    comm *c;
    part *p;
    saver *saver;
    char *model, *run, *life;
    run_state state;
} bench;

static err *write_model(bench *b, double bytes) {
    char text[1024], *path = path_join(b->model, "config.json");
    double layer = 4.0 * HIDDEN * HIDDEN + 3.0 * HIDDEN * FFN;
    int layers = (int)ceil((bytes / 12 - (double)VOCAB * HIDDEN) / layer);
    snprintf(text, sizeof text, config_json, HIDDEN, FFN, layers < 1 ? 1 : layers, HEADS, HEADS, VOCAB);
    err *e = make_dirs(b->model);
    if (!e) e = write_file_atomic(path, text, strlen(text));
    free(path);
    return e;
}

// Optimizer state that is not all zeros: a file system must not find holes or repetitions in it.
static void fill_state(part *p) {
    for (int i = 0; i < p->weights; i++) {
        weight *w = &p->weight[i];
        const float *from = w->w;
        for (int64_t k = 0; k < w->own_n; k++) {
            ((float *)w->m)[k] = 0.125f * from[w->own_at + k];
            ((float *)w->v)[k] = ((float *)w->m)[k] * ((float *)w->m)[k];
        }
    }
}

static err *build(bench *b, double bytes) {
    err *e = NULL;
    part_shape shape = {.dt = DT_F32, .use = PART_TRAIN, .batch = 1, .rows = 16, .micro = 1};
    if (b->w.rank == 0) e = write_model(b, bytes);
    TRY(world_agree(&b->w, e));
    TRY(mesh_make(b->w.size, b->w.rank, 1, 1, MESH_TDP, &b->m));
    TRY(blueprint_make(b->model, NULL, &(layout_shape){.pp = 1, .interleave = 1}, &b->b));
    TRY(device_open("cpu", &b->w, 1, &b->dev));
    TRY(comm_open(&b->m, b->dev, HEADS, true, 600, &b->c));
    TRY(part_make(b->b.spec, b->b.plan, b->b.stages, b->b.table, &b->m, &shape, b->dev, &b->p));
    TRY(weights_random(b->p, 1));
    fill_state(b->p);
done:
    return e;
}

static err *open_saver(bench *b) {
    err *e = NULL;
    char life[512] = "";
    if (b->w.rank == 0) {
        TRY(make_dirs(b->run));
        TRY(life_begin(b->run, &b->life));
        snprintf(life, sizeof life, "%s", b->life);
    }
    TRY(comm_broadcast(b->c, &b->c->world, life, sizeof life, 0));
    if (!b->life) b->life = strdup(life);
    save_options o = {.run_dir = b->run,
                      .life = b->life,
                      .extras_from = b->model,
                      .spec = b->b.spec,
                      .keep = {.keep = 1},
                      .file_bytes = (int64_t)4 << 30};
    TRY(saver_open(b->p, b->c, &o, &b->saver));
done:
    return e;
}

// ---- measuring

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

// The slowest rank's.
static err *slowest(bench *b, double *seconds) {
    double *all = calloc((size_t)b->w.size, sizeof *all);
    if (!all) return err_new(ERR_SYSTEM, "out of memory");
    err *e = comm_collect(b->c, seconds, all, sizeof *seconds);
    for (int r = 0; r < b->w.size; r++) *seconds = fmax(*seconds, all[r]);
    free(all);
    return e;
}

static void tell(const bench *b, const char *name, double value, const char *unit) {
    if (b->w.rank == 0) printf("%s %.4g %s\n", name, value, unit);
}

// What a plain copy of as many bytes takes, and what their sums take.
static void measure_copy_and_sums(bench *b, double *copy, double *sums) {
    size_t n = saver_bytes(b->saver);
    char *from = malloc(n), *to = malloc(n), sum[33];
    if (!from || !to) exit(2);
    memset(from, 1, n);
    memset(to, 2, n);
    double start = now_seconds();
    memcpy(to, from, n);
    *copy = now_seconds() - start;
    start = now_seconds();
    for (size_t at = 0; at < n; at += RANGE) sum_hex(to + at, n - at < RANGE ? n - at : RANGE, sum);
    *sums = now_seconds() - start;
    free(from);
    free(to);
}

// As many bytes as a save writes, written by this rank's share as dd conv=fsync would.
static err *plain_write(const bench *b, double *seconds) {
    err *e = NULL;
    char name[32];
    size_t n = saver_bytes(b->saver), block = RANGE;
    char *data = malloc(block), *path;
    snprintf(name, sizeof name, "plain-%d", b->w.rank);
    path = path_join(b->run, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!data || fd < 0) FAIL(ERR_SYSTEM, "%s cannot be written", path);
    for (size_t i = 0; i < block; i++) data[i] = (char)(i * 2654435761u >> 13);
    double start = now_seconds();
    for (size_t at = 0; at < n; at += block) TRY(write_all(fd, data, n - at < block ? n - at : block, path));
    if (fsync(fd) != 0) FAIL(ERR_SYSTEM, "%s cannot be synced", path);
    *seconds = now_seconds() - start;
done:
    if (fd >= 0) close(fd);
    unlink(path);
    free(path);
    free(data);
    return e;
}

// Saves and plain writes take turns: what a disk gives changes from minute to minute.
static err *measure_saves(bench *b, int rounds) {
    err *e = NULL;
    double stall[MOST_ROUNDS], whole[MOST_ROUNDS], plain[MOST_ROUNDS], copy, sums;
    saved s = {0};
    for (int i = 0; i < rounds; i++) {
        b->state.step++;
        TRY(comm_barrier(b->c));
        TRY(saver_begin(b->saver, &b->state));
        TRY(saver_finish(b->saver, &s));
        stall[i] = s.stall;
        whole[i] = s.seconds - s.stall; // training waits for the rest of it no more
        TRY(slowest(b, &stall[i]));
        TRY(slowest(b, &whole[i]));
        TRY(comm_barrier(b->c));
        TRY(plain_write(b, &plain[i]));
        TRY(slowest(b, &plain[i]));
    }
    measure_copy_and_sums(b, &copy, &sums);
    TRY(slowest(b, &copy));
    TRY(slowest(b, &sums));
    double gb = (double)s.bytes / 1e9, seconds = median(whole, rounds);
    tell(b, "state", gb, "GB");
    tell(b, "stall", median(stall, rounds), "s");
    tell(b, "memcpy", copy, "s");
    tell(b, "write", gb / seconds, "GB/s");
    tell(b, "plain", gb / median(plain, rounds), "GB/s");
    tell(b, "sums", 100 * sums / seconds, "%_of_the_save");
done:
    return e;
}

static err *measure_loads(bench *b, int rounds) {
    err *e = NULL;
    int threads = (int)sysconf(_SC_NPROCESSORS_ONLN) / b->c->m.world; // as a launcher deals cores out
    double seconds[MOST_ROUNDS];
    char *latest = path_join(b->run, "latest");
    for (int i = 0; i < rounds; i++) {
        TRY(comm_barrier(b->c));
        double start = now_seconds();
        TRY(checkpoint_load(b->p, latest, threads > 0 ? threads : 1));
        seconds[i] = now_seconds() - start;
        TRY(slowest(b, &seconds[i]));
    }
    tell(b, "load", median(seconds, rounds), "s");
done:
    free(latest);
    return e;
}

static void print_tensors(const bench *b) {
    for (int i = 0; i < b->b.table->count; i++) {
        const tensor_row *r = &b->b.table->row[i];
        printf("%s %lld %lld\n", r->name, (long long)r->shape[0],
               r->ndim == 2 ? (long long)r->shape[1] : 0LL);
    }
}

int main(int argc, char **argv) {
    bench b = {.state = {.depth_plan = "", .data_order = "", .valid_order = ""}};
    if (argc < 4) return fprintf(stderr, "usage: bench_checkpoint DIR GIGABYTES ROUNDS [--tensors]\n"), 2;
    err *e = world_open(&argc, &argv, &b.w);
    int rounds = atoi(argv[3]);
    b.model = path_join(argv[1], "model");
    b.run = path_join(argv[1], "run");
    if (rounds < 1 || rounds > MOST_ROUNDS) rounds = 3;
    if (!e) e = build(&b, atof(argv[2]) * 1e9);
    if (!e && argc > 4) {
        print_tensors(&b);
        return world_close("bench_checkpoint", &b.w, e);
    }
    if (!e) e = open_saver(&b);
    if (!e) e = measure_saves(&b, rounds);
    if (!e) e = measure_loads(&b, rounds);
    saver_close(b.saver);
    return world_close("bench_checkpoint", &b.w, e);
}
