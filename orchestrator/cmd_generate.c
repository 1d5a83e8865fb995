// solar generate: a few lines of text from a model, with cached keys and values, on any mesh.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/infer.h"
#include "cli.h"
#include "engine.h"
#include "model_dir.h"
#include "tokenizer.h"

typedef struct args {
    const char *prompt, *tokenizer, *precision, *device;
    int64_t tokens, count, seed, pipeline, tensor, threads, top_k;
    double temperature, timeout;
    depth_ask depth;
} args;

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

// Highest first; equal logits in order of their ids, so that all ranks and runs agree.
static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

// xorshift64* (Vigna 2016), uniform in [0,1).
static double uniform(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53;
}

// Temperature 0: the most likely token. Else softmax(logit/temperature) over the top_k (0: all).
static int32_t choose(candidate *c, int64_t n, double temperature, int64_t top_k, uint64_t *state) {
    qsort(c, (size_t)n, sizeof *c, by_logit);
    if (temperature <= 0) return c[0].id;
    if (top_k > 0 && top_k < n) n = top_k;
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += exp((c[i].logit - c[0].logit) / temperature);
    double at = uniform(state) * total;
    for (int64_t i = 0; i < n; i++) {
        at -= exp((c[i].logit - c[0].logit) / temperature);
        if (at <= 0) return c[i].id;
    }
    return c[n - 1].id;
}

typedef struct sampler {
    float *logits;
    candidate *list;
    uint64_t state;
} sampler;

static err *next_token(engine *g, const run *r, const args *a, sampler *s, int32_t *id) {
    int64_t n = g->b.spec->vocab;
    err *e = infer_last_logits(g->p, g->c, r, s->logits);
    for (int64_t i = 0; !e && i < n; i++) {
        if (!isfinite(s->logits[i]))
            return err_share(
                err_new(ERR_NUMERIC, "the logits are not finite: the weights hold NaN, or overflow"));
        s->list[i] = (candidate){s->logits[i], (int32_t)i};
    }
    if (!e) *id = choose(s->list, n, a->temperature, a->top_k, &s->state);
    return e;
}

// Continues v by up to a->tokens ids; the first pass does the whole prompt, each later one a single row.
static err *continue_ids(engine *g, const args *a, sampler *s, ids *v) {
    err *e = NULL;
    run r;
    int64_t first = 0;
    for (int64_t i = 0; i < a->tokens; i++) {
        int32_t id = 0;
        TRY(infer_forward(g->p, g->c, &(token_rows){.input = v->id}, 1, (int64_t)v->count, first, &r));
        first = (int64_t)v->count;
        TRY(next_token(g, &r, a, s, &id));
        if (id == g->b.spec->eos) break;
        v->id[v->count++] = id;
    }
done:
    return e;
}

static err *generate(engine *g, const args *a, const tokenizer *tok, const ids *prompt, ids *v) {
    err *e = NULL;
    size_t n = (size_t)g->b.spec->vocab;
    sampler s = {malloc(n * sizeof(float)), malloc(n * sizeof(candidate)), (uint64_t)a->seed * 2 + 1};
    if (!s.logits || !s.list) FAIL(ERR_SYSTEM, "out of memory for %zu logits", n);
    for (int64_t i = 0; i < a->count; i++) {
        char *text;
        memcpy(v->id, prompt->id, prompt->count * sizeof *v->id);
        v->count = prompt->count;
        TRY(continue_ids(g, a, &s, v));
        TRY(tokenizer_decode(tok, v->id, v->count, &text));
        if (g->m.rank == 0) printf("%s\n%s", text, i + 1 < a->count ? "\n" : "");
        free(text);
    }
done:
    free(s.logits);
    free(s.list);
    return e;
}

static err *encode_prompt(const args *a, const tokenizer *tok, ids *prompt, ids *v) {
    err *e = NULL;
    int32_t bos = tokenizer_bos(tok);
    ids body = {0};
    TRY(tokenizer_encode(tok, a->prompt, strlen(a->prompt), &body));
    prompt->id = malloc((body.count + 1) * sizeof *prompt->id);
    v->id = malloc((body.count + 1 + (size_t)a->tokens) * sizeof *v->id);
    if (!prompt->id || !v->id) FAIL(ERR_SYSTEM, "out of memory for the prompt");
    if (bos >= 0) prompt->id[prompt->count++] = bos;
    if (body.count) memcpy(prompt->id + prompt->count, body.id, body.count * sizeof *body.id);
    prompt->count += body.count;
    if (!prompt->count) FAIL(ERR_USAGE, "the prompt is empty and the tokenizer has no BOS: give --prompt");
done:
    ids_free(&body);
    return e;
}

static err *check_fit(const engine *g, const world *w, const tokenizer *tok) {
    if (g->m.dp > 1)
        return err_new(ERR_CONFIG,
                       "%d ranks for %d x %d parts: generation uses pipeline x tensor ranks, no more",
                       w->size, g->m.pp, g->m.tp);
    if (tokenizer_vocab(tok) > g->b.spec->vocab)
        return err_new(
            ERR_INPUT,
            "the tokenizer has %d ids, the model's vocabulary %lld: it is not the model's tokenizer",
            tokenizer_vocab(tok), (long long)g->b.spec->vocab);
    return NULL;
}

static err *run_on_mesh(const args *a, const char *dir, const world *w, engine *g) {
    err *e = NULL;
    tokenizer *tok = NULL;
    ids prompt = {0}, v = {0};
    err *mine = tokenizer_open(a->tokenizer ? a->tokenizer : dir, &tok);
    if (!mine) mine = encode_prompt(a, tok, &prompt, &v);
    TRY(world_agree(w, mine));
    engine_options o = {.dir = dir,
                        .depth = a->depth,
                        .pp = (int)a->pipeline,
                        .tp = (int)a->tensor,
                        .dt = strcmp(a->precision, "bf16") == 0 ? DT_BF16 : DT_F32,
                        .use = PART_CACHE,
                        .batch = 1,
                        .rows = (int64_t)prompt.count + a->tokens,
                        .threads = (int)a->threads,
                        .device = a->device,
                        .limit = a->timeout};
    TRY(engine_open(&o, w, g));
    TRY(world_agree(w, check_fit(g, w, tok)));
    TRY(generate(g, a, tok, &prompt, &v));
done:
    ids_free(&prompt);
    ids_free(&v);
    tokenizer_close(tok);
    return e;
}

static err *check_args(const args *a) {
    if (strcmp(a->precision, "fp32") == 0 || strcmp(a->precision, "bf16") == 0) return NULL;
    return err_new(ERR_USAGE, "--precision %s: expected fp32 or bf16", a->precision);
}

static int run_generate(int argc, char **argv) {
    args a = {.timeout = 3600,
              .prompt = "",
              .precision = "fp32",
              .device = "auto",
              .depth = {.m = -1},
              .tokens = 64,
              .count = 1,
              .seed = 1,
              .pipeline = 1,
              .tensor = 1,
              .temperature = 0.8,
              .top_k = 0};
    const opt opts[] = {
        {"prompt", OPT_STRING, &a.prompt, "TEXT", "text to continue (default: none, only BOS)", 0, 0},
        {"tokens", OPT_INT, &a.tokens, "N", "tokens to generate at most (default 64)", 1, 1e6},
        {"count", OPT_INT, &a.count, "N", "continuations (default 1)", 1, 1e6},
        {"temperature", OPT_REAL, &a.temperature, "T", "0: the most likely token (default 0.8)", 0, 100},
        {"top-k", OPT_INT, &a.top_k, "K", "sample among the K most likely (default 0: all)", 0, 1e9},
        {"seed", OPT_INT, &a.seed, "N", "of the sampling (default 1)", 0, 4e18},
        DEPTH_OPTIONS(a.depth),
        {"tokenizer", OPT_STRING, &a.tokenizer, "PATH", "tokenizer.model or `bytes` (default: the model's)",
         0, 0},
        {"precision", OPT_STRING, &a.precision, "fp32|bf16", "arithmetic (default fp32)", 0, 0},
        {"pipeline", OPT_INT, &a.pipeline, "P", "pipeline stages under mpirun (default 1)", 1, 4096},
        {"tensor", OPT_INT, &a.tensor, "T", "tensor-parallel ranks (default 1)", 1, 4096},
        {"threads", OPT_INT, &a.threads, "N", "threads per rank (default 0: the cores given)", 0, 1024},
        {"timeout", OPT_REAL, &a.timeout, "SECONDS",
         "longest wait for another rank; 0: for ever (default 3600)", 0, 1e9},
        {"device", OPT_STRING, &a.device, "auto|cpu|cuda", "where to compute (default auto)", 0, 0},
    };
    int positional;
    bool helped;
    world w = {.size = 1};
    engine g = {0};
    err *e =
        cli_parse(&cmd_generate, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (!e && !helped) e = depth_options_check(&a.depth);
    if (!e && !helped) e = check_args(&a);
    if (e || helped) return cli_finish("generate", e);
    TRY(world_open(&argc, &argv, &w));
    TRY(run_on_mesh(&a, argv[1], &w, &g));
done:
    if (world_orderly(&w, e)) engine_close(&g);
    return world_close("generate", &w, e);
}

const command cmd_generate = {
    .name = "generate",
    .brief = "continue a prompt with a model",
    .synopsis = "DIR [--prompt TEXT] [--tokens N] [options]",
    .about = "Prints the prompt and its continuation. Keys and values are cached, so each token costs one "
             "row. The same\n"
             "seed gives the same text. The options of depth (--m to --insert-init) deepen the model in "
             "memory; nothing is written.",
    .examples = "  solar generate runs/small/latest --prompt \"In the beginning\" --tokens 100\n"
                "  solar generate models/base --m 2 --temperature 0",
    .run = run_generate,
};
