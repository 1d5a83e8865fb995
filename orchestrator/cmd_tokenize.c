// solar tokenize: text to token files, and vocabularies from text.
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "log.h"
#include "tokenize.h"
#include "vocab.h"

static int run(int argc, char **argv);

const command cmd_tokenize = {
    .name = "tokenize",
    .brief = "turn text into token files, or learn a vocabulary from it",
    .synopsis = "INPUT... --tokenizer PATH --out FILE.h5 | INPUT... --train-vocab N --out-model FILE",
    .about = "Inputs are files and directories (walked recursively, in the order of names): .txt and .text "
             "hold one "
             "document each\n"
             "(--blank-lines: many), .jsonl, .ndjson and .json one a line in the field `text` (--field). "
             "Each may be "
             "packed (.gz, .zst).\n"
             "Every document becomes BOS, its tokens, EOS. Broken lines are skipped and invalid UTF-8 is "
             "replaced by "
             "U+FFFD; both are\n"
             "counted and reported, and errors with --strict. The result does not depend on the number of "
             "threads.\n"
             "--valid keeps some documents for validation: which ones follows from --seed and their text "
             "alone, so "
             "copies of a\n"
             "document never stand on both sides.\n"
             "--train-vocab learns a SentencePiece BPE vocabulary with byte fallback instead.",
    .examples = "solar tokenize web/ --tokenizer models/Mistral-7B-v0.1 --out web.h5 --valid valid.h5 "
                "--valid-docs 500\n"
                "solar tokenize book.txt --tokenizer bytes --out book.h5\n"
                "solar tokenize web/*.jsonl.zst --train-vocab 8192 --out-model tokenizer.model",
    .run = run,
};

typedef struct settings {
    const char *tokenizer, *out, *valid, *out_model, *field, *format;
    double valid_fraction;
    int64_t valid_docs, seed, threads, deflate, train_vocab, train_mib;
    bool strict, blank_lines, no_bos, force, helped;
} settings;

static int64_t usable_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static err *parse(settings *s, int argc, char **argv, int *inputs) {
    const opt opts[] = {
        {"tokenizer", OPT_STRING, &s->tokenizer, "PATH",
         "SentencePiece model, a model directory with tokenizer.model, or the word bytes", 0, 0},
        {"out", OPT_STRING, &s->out, "FILE", "token file to write (HDF5)", 0, 0},
        {"valid", OPT_STRING, &s->valid, "FILE", "second token file, for validation", 0, 0},
        {"valid-fraction", OPT_REAL, &s->valid_fraction, "F",
         "share of the documents for --valid (default 0.01)", 1e-9, 0.9},
        {"valid-docs", OPT_INT, &s->valid_docs, "N", "number of documents for --valid, instead of a share", 1,
         1e15},
        {"seed", OPT_INT, &s->seed, "N", "of the split (default 1)", 0, 9e18},
        {"field", OPT_STRING, &s->field, "NAME", "of a JSON line that holds the text (default text)", 0, 0},
        {"format", OPT_STRING, &s->format, "KIND",
         "text or jsonl, whatever the files are called (default: by name)", 0, 0},
        {"blank-lines", OPT_FLAG, &s->blank_lines, NULL, "plain text: blank lines separate documents", 0, 0},
        {"strict", OPT_FLAG, &s->strict, NULL, "broken lines and invalid UTF-8 are errors", 0, 0},
        {"no-bos", OPT_FLAG, &s->no_bos, NULL, "no BOS in front of a document", 0, 0},
        {"deflate", OPT_INT, &s->deflate, "N", "compression, 0 to 9 (default 0: fastest to train from)", 0,
         9},
        {"threads", OPT_INT, &s->threads, "N", "that encode (default: one a core)", 1, 1024},
        {"force", OPT_FLAG, &s->force, NULL, "replace files that exist", 0, 0},
        {"train-vocab", OPT_INT, &s->train_vocab, "N", "learn a vocabulary of N pieces", 260, 1000000},
        {"out-model", OPT_STRING, &s->out_model, "FILE", "the vocabulary (a tokenizer.model) to write", 0, 0},
        {"train-mib", OPT_INT, &s->train_mib, "N", "MiB of text to learn from at most (default 64)", 1,
         100000},
    };
    return cli_parse(&cmd_tokenize, opts, sizeof opts / sizeof *opts, 1, 100000, argc, argv, inputs,
                     &s->helped);
}

static err *check(const settings *s) {
    if (s->train_vocab && (s->out || s->tokenizer || s->valid))
        return err_new(ERR_USAGE, "--train-vocab writes --out-model only; tokenize with it in a second call");
    if ((s->train_vocab != 0) != (s->out_model != NULL))
        return err_new(ERR_USAGE, "--train-vocab N and --out-model FILE belong together");
    if (!s->train_vocab && (!s->tokenizer || !s->out))
        return err_new(ERR_USAGE,
                       "expected --tokenizer PATH and --out FILE (or --train-vocab N --out-model FILE)");
    if (s->valid_docs && !s->valid) return err_new(ERR_USAGE, "--valid-docs needs --valid FILE");
    if (s->valid && strcmp(s->valid, s->out) == 0)
        return err_new(ERR_USAGE, "--out and --valid are the same file, %s", s->out);
    if (s->format && strcmp(s->format, "text") != 0 && strcmp(s->format, "jsonl") != 0)
        return err_new(ERR_USAGE, "--format: found %s, expected text or jsonl", s->format);
    return NULL;
}

static text_options text_of(const settings *s) {
    text_format format = !s->format ? TEXT_BY_NAME : s->format[0] == 't' ? TEXT_PLAIN : TEXT_JSONL;
    return (text_options){
        .field = s->field, .strict = s->strict, .blank_lines = s->blank_lines, .format = format};
}

static void print_part(const char *path, const tokenize_part *p) {
    printf("%s: %llu documents, %llu tokens, %.2f bytes/token\n", path, (unsigned long long)p->documents,
           (unsigned long long)p->tokens, p->tokens ? (double)p->bytes / (double)p->tokens : 0.0);
}

static void print_counts(const text_counts *c, int skipped_files) {
    if (c->broken)
        log_warn("%llu broken lines skipped (--strict shows the first)", (unsigned long long)c->broken);
    if (c->invalid_utf8)
        log_warn("%llu invalid UTF-8 sequences replaced by U+FFFD (--strict shows the first)",
                 (unsigned long long)c->invalid_utf8);
    if (c->empty) log_info("%llu empty documents skipped", (unsigned long long)c->empty);
    if (skipped_files) log_info("%d files of other names skipped", skipped_files);
}

static err *tokenize(const settings *s, char **input, int inputs) {
    err *e = NULL;
    tokenizer *t = NULL;
    tokenize_report report;
    TRY(tokenizer_open(s->tokenizer, &t));
    if (tokenizer_eos(t) < 0)
        FAIL(ERR_INPUT, "%s has no end-of-document id (EOS), so that documents could not be told apart",
             s->tokenizer);
    const tokenize_options o = {.input = (const char *const *)input,
                                .inputs = inputs,
                                .text = text_of(s),
                                .out = s->out,
                                .valid = s->valid,
                                .valid_fraction = s->valid_fraction,
                                .valid_docs = s->valid_docs,
                                .seed = (uint64_t)s->seed,
                                .threads = (int)s->threads,
                                .deflate = (int)s->deflate,
                                .bos = !s->no_bos && tokenizer_bos(t) >= 0,
                                .force = s->force,
                                .progress = true};
    TRY(tokenize_files(&o, t, &report));
    print_counts(&report.counts, report.skipped_files);
    print_part(s->out, &report.train);
    if (s->valid) print_part(s->valid, &report.valid);
done:
    tokenizer_close(t);
    return e;
}

static err *train_vocab(const settings *s, char **input, int inputs) {
    err *e = NULL;
    text_input *in = NULL;
    vocab_report report;
    const text_options text = text_of(s);
    const vocab_options o = {.pieces = (int)s->train_vocab,
                             .most_bytes = (uint64_t)s->train_mib << 20,
                             .seed = (uint64_t)s->seed,
                             .force = s->force,
                             .output = s->out_model};
    TRY(text_open((const char *const *)input, inputs, &text, &in));
    double start = now_seconds();
    TRY(vocab_train(in, &o, &report));
    text_counts counts = text_get_counts(in);
    print_counts(&counts, text_skipped_files(in));
    printf("%s: %d pieces, learned from %llu documents (%.1f MB) in %.1f s\n", s->out_model, o.pieces,
           (unsigned long long)report.documents, (double)report.bytes / 1e6, now_seconds() - start);
done:
    text_close(in);
    return e;
}

static int run(int argc, char **argv) {
    err *e = NULL;
    settings s = {.valid_fraction = 0.01, .seed = 1, .threads = usable_cores(), .train_mib = 64};
    int inputs = 0;
    TRY(parse(&s, argc, argv, &inputs));
    if (s.helped) goto done;
    TRY(check(&s));
    TRY(s.train_vocab ? train_vocab(&s, argv + 1, inputs) : tokenize(&s, argv + 1, inputs));
done:
    return cli_finish("tokenize", e);
}
