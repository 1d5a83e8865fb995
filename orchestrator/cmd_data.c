// solar data: what a token file holds.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "cli.h"
#include "data_order.h"
#include "log.h"
#include "tokenizer.h"
#include "tokens.h"

static int run(int argc, char **argv);

const command cmd_data = {
    .name = "data",
    .brief = "show and check a token file; the order of a run's samples, planned and real",
    .synopsis =
        "FILE.h5 [--check] [--sample N] [--tokenizer PATH] [--json] | --order CONFIG [--from I] [--count N] "
        "| --audit RUN",
    .about =
        "Prints what a token file says of itself. --check reads all of it: every id within the vocabulary,\n"
        "document starts ascending, every document ended by EOS where there is one. --sample prints document "
        "N,\n"
        "decoded when a tokenizer is given (files of plain bytes need none). --order prints where the "
        "training\n"
        "samples of a run config come from, from position --from on; a run's position is the "
        "samples_consumed\n"
        "of its checkpoints. --audit proves what a run was trained on: every step left a digest of its "
        "samples\n"
        "in RUN/metrics.jsonl, and here the token files are read again in the order of RUN/config.yaml. "
        "However\n"
        "often the run was killed, resumed, or put on another mesh, no sample may be missing or have come "
        "twice.",
    .examples = "solar data web.h5\n"
                "solar data web.h5 --check --sample 17 --tokenizer models/Mistral-7B-v0.1\n"
                "solar data --order jobs/solar_cpt.yaml --from 2048000 --count 16\n"
                "solar data --audit runs/solar-10.7b",
    .run = run,
};

enum { BLOCK = 1 << 16, SHOWN_TOKENS = 512 };

typedef struct settings {
    bool check, json, helped;
    int64_t sample, limit; // sample -1: none
    const char *tokenizer;
    const char *order; // a config; NULL: a token file is shown, or a run audited
    const char *audit; // a run directory
    int64_t from, count;
} settings;

typedef struct findings {
    uint64_t unended;           // documents whose last token is not EOS
    uint64_t shortest, longest; // tokens
    int64_t largest_id, used_ids;
} findings;

// ---- checks

static err *check_ids(tokens_file *f, char *used, findings *out) {
    err *e = NULL;
    const tokens_info *info = tokens_get_info(f);
    int32_t *id = malloc(BLOCK * sizeof *id);
    if (!id) FAIL(ERR_SYSTEM, "no memory");
    for (uint64_t at = 0; at < info->tokens; at += BLOCK) {
        uint64_t n = info->tokens - at < BLOCK ? info->tokens - at : BLOCK;
        TRY(tokens_read(f, at, n, id));
        for (uint64_t i = 0; i < n; i++) used[id[i]] = 1;
    }
    for (int64_t i = 0; i < info->vocab; i++) {
        if (!used[i]) continue;
        out->used_ids++;
        out->largest_id = i;
    }
done:
    free(id);
    return e;
}

static err *check_document(tokens_file *f, uint64_t start, uint64_t end, findings *out) {
    const tokens_info *info = tokens_get_info(f);
    int32_t last = 0;
    err *e = info->eos >= 0 ? tokens_read(f, end - 1, 1, &last) : NULL;
    out->unended += info->eos >= 0 && last != info->eos;
    if (end - start < out->shortest) out->shortest = end - start;
    if (end - start > out->longest) out->longest = end - start;
    return e;
}

// Blocks of starts overlap by one, so that tokens_documents sees every pair of neighbours.
static err *check_documents(tokens_file *f, findings *out) {
    err *e = NULL;
    const tokens_info *info = tokens_get_info(f);
    uint64_t *start = malloc((BLOCK + 1) * sizeof *start);
    if (!start) FAIL(ERR_SYSTEM, "no memory");
    out->shortest = info->documents ? UINT64_MAX : 0;
    for (uint64_t at = 0; at < info->documents; at += BLOCK) {
        uint64_t left = info->documents - at, n = left < BLOCK ? left : BLOCK;
        TRY(tokens_documents(f, at, left > BLOCK ? BLOCK + 1 : left, start));
        if (left <= BLOCK) start[left] = info->tokens;
        for (uint64_t i = 0; i < n; i++) TRY(check_document(f, start[i], start[i + 1], out));
    }
done:
    free(start);
    return e;
}

static err *check_all(tokens_file *f, findings *out) {
    err *e = NULL;
    char *used = calloc((size_t)tokens_get_info(f)->vocab, 1);
    if (!used) FAIL(ERR_SYSTEM, "no memory");
    out->largest_id = -1;
    TRY(check_ids(f, used, out));
    TRY(check_documents(f, out));
done:
    free(used);
    return e;
}

// ---- a sample

static err *open_tokenizer(const char *path, const tokens_info *info, tokenizer **out) {
    err *e = NULL;
    *out = NULL;
    if (!path && strcmp(info->tokenizer, "bytes") == 0 && !info->sha256[0]) path = "bytes";
    if (!path) return NULL;
    TRY(tokenizer_open(path, out));
    if (strcmp(tokenizer_sha256(*out), info->sha256) != 0)
        FAIL(ERR_INPUT, "the file was made with the tokenizer %s (SHA-256 %s), %s is another one (%s)",
             info->tokenizer, info->sha256[0] ? info->sha256 : "none", path,
             tokenizer_sha256(*out)[0] ? tokenizer_sha256(*out) : "none");
done:
    if (e) {
        tokenizer_close(*out);
        *out = NULL;
    }
    return e;
}

typedef struct document {
    uint64_t start, count;
    int32_t *id; // the first `shown`
    uint64_t shown;
    char *text; // NULL without a tokenizer
} document;

static void document_free(document *d) {
    free(d->id);
    free(d->text);
}

static err *read_document(tokens_file *f, uint64_t n, uint64_t limit, const tokenizer *t, document *out) {
    err *e = NULL;
    const tokens_info *info = tokens_get_info(f);
    uint64_t start[2] = {0, info->tokens};
    if (n >= info->documents)
        FAIL(ERR_USAGE, "--sample %llu: there are %llu documents, from 0", (unsigned long long)n,
             (unsigned long long)info->documents);
    TRY(tokens_documents(f, n, n + 1 < info->documents ? 2 : 1, start));
    out->start = start[0];
    out->count = start[1] - start[0];
    out->shown = out->count < limit ? out->count : limit;
    out->id = malloc(out->shown * sizeof *out->id);
    if (!out->id) FAIL(ERR_SYSTEM, "no memory for %llu tokens", (unsigned long long)out->shown);
    TRY(tokens_read(f, start[0], out->shown, out->id));
    if (t) TRY(tokenizer_decode(t, out->id, out->shown, &out->text));
done:
    return e;
}

// ---- printing

static void print_info(const char *path, const tokens_info *info) {
    printf("file        %s\n", path);
    printf("tokens      %llu (uint%d)\n", (unsigned long long)info->tokens, 8 * info->width);
    printf("documents   %llu\n", (unsigned long long)info->documents);
    printf("vocabulary  %lld ids, end of document %d\n", (long long)info->vocab, info->eos);
    printf("tokenizer   %s%s%s\n", info->tokenizer, info->sha256[0] ? ", SHA-256 " : "", info->sha256);
    printf("source      %s\n", info->source);
}

static void print_findings(const findings *f) {
    printf("checked     ids used %lld, largest %lld; documents of %llu to %llu tokens; %llu without an end\n",
           (long long)f->used_ids, (long long)f->largest_id, (unsigned long long)f->shortest,
           (unsigned long long)f->longest, (unsigned long long)f->unended);
}

static void print_document(int64_t n, const document *d) {
    printf("document %lld: tokens %llu to %llu%s\n", (long long)n, (unsigned long long)d->start,
           (unsigned long long)(d->start + d->count - 1), d->shown < d->count ? ", its beginning:" : ":");
    for (uint64_t i = 0; i < d->shown && !d->text; i++) printf("%d ", d->id[i]);
    printf("%s\n", d->text ? d->text : "");
}

static json_t *json_of(const char *path, const tokens_info *i, const findings *f, const document *d) {
    json_t *out = json_pack("{s:s, s:I, s:I, s:I, s:i, s:i, s:s, s:s, s:s}", "file", path, "tokens",
                            (json_int_t)i->tokens, "documents", (json_int_t)i->documents, "vocab_size",
                            (json_int_t)i->vocab, "eos_id", i->eos, "width", i->width, "tokenizer",
                            i->tokenizer, "tokenizer_sha256", i->sha256, "source", i->source);
    if (!out) return NULL; // a name that is not UTF-8
    if (f)
        json_object_set_new(out, "checked",
                            json_pack("{s:I, s:I, s:I, s:I, s:I}", "ids_used", (json_int_t)f->used_ids,
                                      "largest_id", (json_int_t)f->largest_id, "shortest",
                                      (json_int_t)f->shortest, "longest", (json_int_t)f->longest, "unended",
                                      (json_int_t)f->unended));
    if (d->id) {
        json_t *ids = json_array();
        for (uint64_t k = 0; k < d->shown; k++) json_array_append_new(ids, json_integer(d->id[k]));
        json_object_set_new(out, "sample", ids);
        if (d->text) json_object_set_new(out, "text", json_string(d->text));
    }
    return out;
}

static err *print_json(const char *path, const tokens_info *info, const findings *f, const document *d) {
    json_t *out = json_of(path, info, f, d);
    if (!out)
        return err_new(ERR_INPUT, "%s: its name or an attribute is not UTF-8, so it cannot be JSON", path);
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
    return NULL;
}

static err *show(const settings *s, const char *path) {
    err *e = NULL;
    tokens_file *f = NULL;
    tokenizer *t = NULL;
    findings found = {0};
    document d = {0};
    TRY(tokens_open(path, &f));
    const tokens_info *info = tokens_get_info(f);
    if (s->sample >= 0) TRY(open_tokenizer(s->tokenizer, info, &t));
    if (s->check) TRY(check_all(f, &found));
    if (s->sample >= 0) TRY(read_document(f, (uint64_t)s->sample, (uint64_t)s->limit, t, &d));
    if (s->json) {
        TRY(print_json(path, info, s->check ? &found : NULL, &d));
        goto done;
    }
    print_info(path, info);
    if (s->check) print_findings(&found);
    if (s->sample >= 0) print_document(s->sample, &d);
    if (found.unended && info->eos >= 0)
        log_warn("%llu documents do not end with the end-of-document id %d",
                 (unsigned long long)found.unended, info->eos);
done:
    document_free(&d);
    tokenizer_close(t);
    tokens_close(f);
    return e;
}

static int run(int argc, char **argv) {
    err *e = NULL;
    int files = 0;
    settings s = {.sample = -1, .limit = SHOWN_TOKENS, .count = 16};
    const opt opts[] = {
        {"check", OPT_FLAG, &s.check, NULL, "read and check all of it", 0, 0},
        {"sample", OPT_INT, &s.sample, "N", "show document N, from 0", 0, 9e18},
        {"max-tokens", OPT_INT, &s.limit, "N", "of a document shown (default 512)", 1, 1e9},
        {"tokenizer", OPT_STRING, &s.tokenizer, "PATH", "to decode the sample with", 0, 0},
        {"json", OPT_FLAG, &s.json, NULL, "print JSON", 0, 0},
        {"order", OPT_STRING, &s.order, "CONFIG", "print where the samples of this run come from", 0, 0},
        {"from", OPT_INT, &s.from, "I", "with --order: first position (default 0)", 0, 9e18},
        {"audit", OPT_STRING, &s.audit, "RUN", "were its steps trained on the samples of their places?", 0,
         0},
        {"count", OPT_INT, &s.count, "N", "with --order: positions (default 16)", 1, 1e15},
    };
    TRY(cli_parse(&cmd_data, opts, sizeof opts / sizeof *opts, 0, 1, argc, argv, &files, &s.helped));
    if (s.helped) goto done;
    if (s.tokenizer && s.sample < 0) s.sample = 0;
    if ((s.order != NULL) + (s.audit != NULL) + files != 1)
        FAIL(ERR_USAGE, "expected a token FILE, --order CONFIG or --audit RUN, one of the three");
    if (s.audit)
        e = audit_run(s.audit);
    else
        e = s.order ? print_order(s.order, (uint64_t)s.from, (uint64_t)s.count) : show(&s, argv[1]);
done:
    return cli_finish("data", e);
}
