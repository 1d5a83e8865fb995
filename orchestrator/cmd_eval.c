// solar eval: loss of a model on documents or on token files, deepened in memory when asked.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../worker/infer.h"
#include "cli.h"
#include "engine.h"
#include "log.h"
#include "model_dir.h"
#include "stream.h"
#include "text_input.h"
#include "tokenizer.h"

typedef struct args {
    const char *text, *tokens, *tokenizer, *precision, *device;
    int64_t docs, max_tokens, seq_len, samples, pipeline, tensor, threads;
    depth_ask depth;
    double timeout;
    bool json, no_bos, mask_documents, allow_mismatch;
} args;

typedef struct result {
    loss_sum sum; // of this rank
    int64_t items;
} result;

// ---- documents

typedef struct documents {
    int32_t **id;    // BOS and the first tokens
    int64_t *length; // ids
    int64_t count, longest;
} documents;

static void documents_free(documents *d) {
    for (int64_t i = 0; i < d->count; i++) free(d->id[i]);
    free(d->id);
    free(d->length);
}

static err *documents_add(documents *d, const ids *v, int32_t bos, int64_t max_tokens) {
    int64_t n = (int64_t)v->count < max_tokens ? (int64_t)v->count : max_tokens, head = bos >= 0;
    if (n + head < 2) return NULL; // nothing to predict
    int32_t **id = realloc(d->id, (size_t)(d->count + 1) * sizeof *id);
    if (id) d->id = id;
    int64_t *length = realloc(d->length, (size_t)(d->count + 1) * sizeof *length);
    if (length) d->length = length;
    int32_t *doc = malloc((size_t)(n + head) * sizeof *doc);
    if (!id || !length || !doc) {
        free(doc);
        return err_new(ERR_SYSTEM, "out of memory for the documents");
    }
    if (head) doc[0] = bos;
    memcpy(doc + head, v->id, (size_t)n * sizeof *doc);
    d->id[d->count] = doc;
    d->length[d->count++] = n + head;
    if (n + head > d->longest) d->longest = n + head;
    return NULL;
}

static err *documents_read(const args *a, const char *dir, const world *w, documents *d) {
    err *e = NULL;
    tokenizer *tok = NULL;
    text_input *in = NULL;
    ids v = {0};
    const char *text;
    size_t bytes;
    bool end = false;
    TRY(tokenizer_open(a->tokenizer ? a->tokenizer : dir, &tok));
    TRY(text_open(&a->text, 1, &(text_options){.field = "text"}, &in));
    for (int64_t taken = 0; a->docs == 0 || taken < a->docs; taken++) {
        TRY(text_next(in, &text, &bytes, &end));
        if (end) break;
        v.count = 0;
        TRY(tokenizer_encode(tok, text, bytes, &v));
        TRY(documents_add(d, &v, a->no_bos ? -1 : tokenizer_bos(tok), a->max_tokens));
    }
    text_counts counts = text_get_counts(in);
    if (w->rank == 0 && (counts.broken || counts.invalid_utf8))
        log_warn("%s: %llu broken lines left out, %llu invalid UTF-8 sequences replaced", a->text,
                 (unsigned long long)counts.broken, (unsigned long long)counts.invalid_utf8);
    if (!d->count) FAIL(ERR_INPUT, "%s holds no document with anything to predict", a->text);
done:
    ids_free(&v);
    text_close(in);
    tokenizer_close(tok);
    return e;
}

// Data ranks take documents in turn.
static err *score_documents(engine *g, const documents *d, result *r) {
    err *e = NULL;
    for (int64_t i = g->m.d; i < d->count; i += g->m.dp) {
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): documents that are counted are there
        const token_rows rows = {.input = d->id[i], .target = d->id[i] + 1};
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference)
        TRY(infer_loss(g->p, g->c, &rows, 1, d->length[i] - 1, &r->sum));
    }
    r->items = d->count;
done:
    return e;
}

static int64_t largest_id(const documents *d) {
    int64_t most = 0;
    for (int64_t i = 0; i < d->count; i++)
        for (int64_t j = 0; j < d->length[i]; j++)
            if (d->id[i][j] > most) most = d->id[i][j];
    return most;
}

static err *check_vocabulary(const documents *d, int64_t vocab) {
    int64_t id = largest_id(d);
    if (id < vocab) return NULL;
    return err_new(
        ERR_INPUT,
        "the tokenizer gives id %lld, the model's vocabulary has %lld: it is not the model's tokenizer",
        (long long)id, (long long)vocab);
}

static engine_options options_of(const args *a, const char *dir, int64_t rows) {
    return (engine_options){.dir = dir,
                            .depth = a->depth,
                            .pp = (int)a->pipeline,
                            .tp = (int)a->tensor,
                            .dt = strcmp(a->precision, "bf16") == 0 ? DT_BF16 : DT_F32,
                            .use = PART_INFER,
                            .mask_documents = a->mask_documents,
                            .batch = 1,
                            .rows = rows,
                            .threads = (int)a->threads,
                            .device = a->device,
                            .limit = a->timeout};
}

static err *eval_documents(const args *a, const char *dir, const world *w, engine *g, result *r) {
    err *e = NULL;
    documents d = {0};
    TRY(world_agree(w, documents_read(a, dir, w, &d)));
    engine_options o = options_of(a, dir, d.longest - 1);
    TRY(engine_open(&o, w, g));
    TRY(world_agree(w, check_vocabulary(&d, g->b.spec->vocab)));
    TRY(score_documents(g, &d, r));
done:
    documents_free(&d);
    return e;
}

// ---- token files

static err *score_samples(engine *g, valid_set *v, int64_t seq_len, result *r) {
    err *e = NULL;
    token_rows rows = {0};
    int32_t *sample = malloc((size_t)(seq_len + 1) * sizeof *sample);
    TRY(token_rows_make(&rows, seq_len, g->p->shape.mask_documents));
    if (!sample) FAIL(ERR_SYSTEM, "out of memory for a sample");
    r->items = valid_samples(v);
    for (int64_t i = g->m.d; i < r->items; i += g->m.dp) {
        TRY(valid_read(v, i, 1, sample));
        samples_split(sample, 1, seq_len, &rows);
        TRY(infer_loss(g->p, g->c, &rows, 1, seq_len, &r->sum));
    }
done:
    token_rows_free(&rows);
    free(sample);
    return e;
}

static err *eval_tokens(const args *a, const char *dir, const world *w, engine *g, result *r) {
    err *e = NULL;
    valid_set *v = NULL;
    source_config src = {.name = "tokens", .files = (char *)a->tokens, .weight = 1, .samples = a->samples};
    engine_options o = options_of(a, dir, a->seq_len);
    char sha256[65];
    TRY(engine_open(&o, w, g));
    TRY(comm_agree(g->c, tokenizer_file_sha256(dir, sha256)));
    stream_check check = {.vocab = g->b.spec->vocab,
                          .tokenizer_sha256 = sha256,
                          .allow_mismatch = a->allow_mismatch,
                          .mark_documents = a->mask_documents};
    TRY(comm_agree(g->c, valid_open(&src, a->seq_len, &check, &v)));
    TRY(score_samples(g, v, a->seq_len, r));
done:
    valid_close(v);
    return e;
}

// ---- the command

static err *report(const args *a, engine *g, result *r) {
    err *e = comm_sum_world(g->c, &r->sum.loss, 2);
    if (e) return e;
    double loss = r->sum.loss / r->sum.predicted;
    if (!isfinite(loss))
        return err_share(err_new(ERR_NUMERIC, "the loss is not finite: the weights hold NaN, or overflow"));
    if (g->m.rank) return NULL;
    char *plan = depth_text(g->b.plan);
    if (a->json)
        printf("{\"loss\": %.9g, \"perplexity\": %.9g, \"tokens\": %lld, \"%s\": %lld, \"layers\": %d, "
               "\"depth_plan\": \"%s\"}\n",
               loss, exp(loss), (long long)r->sum.predicted, a->text ? "documents" : "samples",
               (long long)r->items, g->b.plan->layers, plan);
    else
        printf("%lld %s, %lld tokens, layers %s: %.6f nats/token, perplexity %.4f\n", (long long)r->items,
               a->text ? "documents" : "samples", (long long)r->sum.predicted, plan, loss, exp(loss));
    free(plan);
    return NULL;
}

static err *check_args(const args *a) {
    if (!a->text == !a->tokens) return err_new(ERR_USAGE, "give either --text or --tokens");
    if (a->text && a->mask_documents)
        return err_new(ERR_USAGE,
                       "--mask-documents goes with --tokens: with --text every document is scored alone");
    if (strcmp(a->precision, "fp32") != 0 && strcmp(a->precision, "bf16") != 0)
        return err_new(ERR_USAGE, "--precision %s: expected fp32 or bf16", a->precision);
    return NULL;
}

static int run_eval(int argc, char **argv) {
    err *e = NULL;
    args a = {.timeout = 3600,
              .precision = "fp32",
              .device = "auto",
              .depth = {.m = -1},
              .max_tokens = 1024,
              .seq_len = 1024,
              .pipeline = 1,
              .tensor = 1};
    const opt opts[] = {
        {"text", OPT_STRING, &a.text, "FILE", "documents: .jsonl (`text` field), .txt, also .gz or .zst", 0,
         0},
        {"tokens", OPT_STRING, &a.tokens, "FILE", "instead of --text: token file (.h5) or pattern", 0, 0},
        {"docs", OPT_INT, &a.docs, "N", "first N documents only (default 0: all)", 0, 1e12},
        {"max-tokens", OPT_INT, &a.max_tokens, "N", "tokens of a document after BOS (default 1024)", 1, 1e7},
        {"no-bos", OPT_FLAG, &a.no_bos, NULL, "no BOS in front of a document", 0, 0},
        {"seq-len", OPT_INT, &a.seq_len, "N", "with --tokens: tokens predicted per sample (default 1024)", 1,
         1e7},
        {"samples", OPT_INT, &a.samples, "N", "with --tokens: samples, spread evenly (default 0: all)", 0,
         1e12},
        {"mask-documents", OPT_FLAG, &a.mask_documents, NULL,
         "with --tokens: keep the documents of a sample apart, as data.mask_documents", 0, 0},
        {"allow-tokenizer-mismatch", OPT_FLAG, &a.allow_mismatch, NULL,
         "with --tokens: although another tokenizer made them", 0, 0},
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
        {"json", OPT_FLAG, &a.json, NULL, "one JSON object on stdout", 0, 0},
    };
    int positional;
    bool helped;
    world w = {.size = 1};
    engine g = {0};
    result r = {0};
    e = cli_parse(&cmd_eval, opts, sizeof opts / sizeof *opts, 1, 1, argc, argv, &positional, &helped);
    if (!e && !helped) e = depth_options_check(&a.depth);
    if (!e && !helped) e = check_args(&a);
    if (e || helped) return cli_finish("eval", e);
    TRY(world_open(&argc, &argv, &w));
    if (a.text)
        TRY(eval_documents(&a, argv[1], &w, &g, &r));
    else
        TRY(eval_tokens(&a, argv[1], &w, &g, &r));
    TRY(report(&a, &g, &r));
done:
    if (world_orderly(&w, e)) engine_close(&g);
    return world_close("eval", &w, e);
}

const command cmd_eval = {
    .name = "eval",
    .brief = "loss of a model on text or token files",
    .synopsis = "DIR (--text FILE | --tokens FILE.h5) [--m M | --layers LIST | --insert-every K] [options]",
    .about =
        "Mean negative log-likelihood per predicted token, in nats. With --text every document is scored "
        "alone:\n"
        "BOS and its first --max-tokens tokens. With --tokens samples of --seq-len tokens are scored as in\n"
        "training. The options of depth (--m to --insert-init) deepen the model in memory; nothing is\n"
        "written. Under mpirun the model is split into --pipeline x --tensor parts and the data over the\n"
        "ranks that are left.",
    .examples =
        "  solar eval models/base --text valid.jsonl --docs 60 --max-tokens 256\n"
        "  solar eval models/base --layers 0-23,8-31 --text valid.jsonl --json\n"
        "  mpirun -np 4 solar eval runs/small/latest --tokens valid.h5 --seq-len 512 --pipeline 2 --tensor 2",
    .run = run_eval,
};
