// Text to token files: the same on any number of threads, split alike on every run, whole or not at all.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli.h"
#include "encode.h"
#include "fsutil.h"
#include "tokenize.h"
#include "tokens.h"
#include "vocab.h"

static char dir[] = "/tmp/solar-tokenize-XXXXXX";
static tokenizer *bytes;

static const char *at(const char *name) {
    static char path[16][200];
    static int next;
    char *p = path[next++ % 16];
    snprintf(p, 200, "%s/%s", dir, name);
    return p;
}

static void no_error(err *e) {
    if (e) fail_msg("%s", err_text(e));
}

static void is_error(err *e, err_code code, const char *words) {
    if (!e) fail_msg("no error, expected one about: %s", words);
    if (err_get_code(e) != code || !strstr(err_text(e), words))
        fail_msg("expected %d about \"%s\", got %d: %s", code, words, err_get_code(e), err_text(e));
    err_free(e);
}

enum { DOCUMENTS = 3000 };

// Of all lengths up to a few jobs; each says its number.
static void write_corpus(const char *path) {
    FILE *f = fopen(path, "w");
    for (int i = 0; i < DOCUMENTS; i++) {
        fprintf(f, "{\"text\": \"<%d>", i);
        int length = i % 500 == 7 ? 150000 : i * 37 % 300;
        for (int k = 0; k < length; k++) putc('a' + (i + k) % 26, f);
        fputs("\"}\n", f);
        if (i % 100 == 50) fputs("broken\n{\"text\": \"\"}\n", f);
    }
    fclose(f);
}

static tokenize_options options_of(const char *const *input, const char *out) {
    return (tokenize_options){.input = input, .inputs = 1, .out = out, .seed = 1, .threads = 2, .bos = true};
}

static void same_files(const char *a, const char *b) {
    char one[65], two[65];
    no_error(sha256_file(a, one));
    no_error(sha256_file(b, two));
    assert_string_equal(one, two);
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    tokenize_report first, report;
    for (int threads = 1; threads <= 5; threads++) {
        const char *input[] = {at("corpus.jsonl")};
        tokenize_options o = options_of(input, threads == 1 ? at("one.h5") : at("many.h5"));
        o.valid = threads == 1 ? at("one-valid.h5") : at("many-valid.h5");
        o.valid_fraction = 0.1;
        o.threads = threads;
        o.force = true;
        no_error(tokenize_files(&o, bytes, &report));
        if (threads == 1) first = report;
        assert_int_equal(report.train.tokens, first.train.tokens);
        assert_int_equal(report.train.documents + report.valid.documents, DOCUMENTS);
        assert_int_equal(report.counts.broken, 30);
        assert_int_equal(report.counts.empty, 30);
        same_files(at("one.h5"), o.out);
        same_files(at("one-valid.h5"), o.valid);
    }
    assert_true(first.valid.documents > 200 && first.valid.documents < 400); // 300, 6 sigma
}

// Every document once, in the order of the input, between BOS and EOS.
static void test_contents(void **state) {
    (void)state;
    tokens_file *f[2];
    uint64_t next[2] = {0};
    no_error(tokens_open(at("one.h5"), &f[0]));
    no_error(tokens_open(at("one-valid.h5"), &f[1]));
    assert_string_equal(tokens_get_info(f[0])->tokenizer, "bytes");
    assert_int_equal(tokens_get_info(f[0])->eos, 257);
    for (int i = 0; i < DOCUMENTS; i++) {
        char head[16];
        int32_t id[16] = {0};
        uint64_t start = 0, n = (uint64_t)snprintf(head, sizeof head, "<%d>", i);
        int part = 0;
        for (; part < 2; part++) {
            if (next[part] == tokens_get_info(f[part])->documents) continue;
            no_error(tokens_documents(f[part], next[part], 1, &start));
            no_error(tokens_read(f[part], start, n + 1, id));
            uint64_t k = 0;
            while (k < n && id[k + 1] == head[k]) k++;
            if (k == n) break;
        }
        assert_true(part < 2);
        assert_int_equal(id[0], 256);
        if (start > 0) {
            no_error(tokens_read(f[part], start - 1, 1, id));
            assert_int_equal(id[0], 257);
        }
        next[part]++;
    }
    assert_int_equal(next[0], tokens_get_info(f[0])->documents);
    assert_int_equal(next[1], tokens_get_info(f[1])->documents);
    tokens_close(f[0]);
    tokens_close(f[1]);
}

static void test_split_by_count(void **state) {
    (void)state;
    const char *input[] = {at("corpus.jsonl")};
    tokenize_report report;
    tokenize_options o = options_of(input, at("count.h5"));
    o.valid = at("count-valid.h5");
    o.valid_docs = 17;
    no_error(tokenize_files(&o, bytes, &report));
    assert_int_equal(report.valid.documents, 17);
    assert_int_equal(report.train.documents, DOCUMENTS - 17);
    o.force = true;
    o.valid_docs = DOCUMENTS;
    is_error(tokenize_files(&o, bytes, &report), ERR_USAGE, "leaves nothing to train on");
    o.valid_docs = 0;
    o.valid_fraction = 1e-9;
    is_error(tokenize_files(&o, bytes, &report), ERR_USAGE, "0 for validation");
}

// Copies of a document stay on one side, whatever lies between.
static void test_copies_stay_together(void **state) {
    (void)state;
    FILE *f = fopen(at("copies.jsonl"), "w");
    for (int i = 0; i < 2000; i++) fprintf(f, "{\"text\": \"copy %d\"}\n", i % 40);
    fclose(f);
    const char *input[] = {at("copies.jsonl")};
    tokenize_report report;
    tokenize_options o = options_of(input, at("copies.h5"));
    o.valid = at("copies-valid.h5");
    o.valid_fraction = 0.2;
    no_error(tokenize_files(&o, bytes, &report));
    assert_true(report.valid.documents > 0);
    assert_int_equal(report.valid.documents % 50, 0);
}

static bool has_leftovers(void) {
    bool found = false;
    DIR *d = opendir(dir);
    for (struct dirent *entry; (entry = readdir(d));) found |= strstr(entry->d_name, ".tmp") != NULL;
    closedir(d);
    return found;
}

static void test_failures_leave_nothing(void **state) {
    (void)state;
    const char *input[] = {at("corpus.jsonl")}, *missing[] = {at("missing.jsonl")};
    tokenize_report report;
    tokenize_options o = options_of(input, at("strict.h5"));
    o.text.strict = true;
    for (o.threads = 1; o.threads < 4; o.threads++) // the first in the order of the input, always
        is_error(tokenize_files(&o, bytes, &report), ERR_INPUT, "corpus.jsonl:52: not JSON");
    o = options_of(missing, at("strict.h5"));
    is_error(tokenize_files(&o, bytes, &report), ERR_INPUT, "no such file");
    no_error(write_file_atomic(at("hollow.jsonl"), "x\n{}\n", 5));
    const char *hollow[] = {at("hollow.jsonl")};
    o = options_of(hollow, at("strict.h5"));
    is_error(tokenize_files(&o, bytes, &report), ERR_INPUT, "2 broken lines");
    assert_false(path_exists(at("strict.h5")));
    o = options_of(input, at("one.h5"));
    is_error(tokenize_files(&o, bytes, &report), ERR_USAGE, "--force replaces it");
    o.out = at("no/such/dir.h5");
    is_error(tokenize_files(&o, bytes, &report), ERR_SYSTEM, "cannot create");
    assert_false(has_leftovers());
}

static void test_encoder_can_be_left(void **state) {
    (void)state;
    const char *input = at("corpus.jsonl");
    const encode_options o = {.tokenizer = bytes, .seed = 1, .threads = 3};
    for (int take = 0; take < 3; take++) {
        text_input *in;
        encoder *p;
        encoded d;
        bool end;
        no_error(text_open(&input, 1, NULL, &in));
        no_error(encode_open(in, &o, &p));
        for (int i = 0; i < take * 700; i++) no_error(encode_next(p, &d, &end));
        encode_close(p);
        text_close(in);
    }
}

static void test_vocab(void **state) {
    (void)state;
    const char *input = at("corpus.jsonl");
    char first[65], second[65];
    for (int i = 0; i < 2; i++) {
        text_input *in;
        vocab_report report;
        const vocab_options o = {
            .pieces = 300, .most_bytes = 1 << 18, .seed = 1, .force = i > 0, .output = at("vocab.model")};
        no_error(text_open(&input, 1, NULL, &in));
        no_error(vocab_train(in, &o, &report));
        text_close(in);
        assert_true(report.documents > 10 && report.documents < DOCUMENTS);
        no_error(sha256_file(o.output, i ? second : first));
    }
    assert_string_equal(first, second);
    text_input *in;
    vocab_report report;
    const vocab_options again = {.pieces = 300, .most_bytes = 1, .output = at("vocab.model")};
    no_error(text_open(&input, 1, NULL, &in));
    is_error(vocab_train(in, &again, &report), ERR_USAGE, "exists already");
    text_close(in);
}

// ---- the commands themselves

static int call(const command *c, const char *line) {
    char *copy = strdup(line), *argv[32], *save = NULL;
    int argc = 0;
    for (char *word = strtok_r(copy, " ", &save); word && argc < 31; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    fflush(stdout);
    int out = dup(STDOUT_FILENO), error = dup(STDERR_FILENO);
    assert_non_null(freopen("/dev/null", "w", stdout));
    FILE *null = fopen("/dev/null", "w");
    dup2(fileno(null), STDERR_FILENO);
    int status = c->run(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    fclose(null);
    close(out);
    close(error);
    free(copy);
    return status;
}

// `%s` of a line stands for the test's directory.
static void status_is(int want, const command *c, const char *format) {
    char line[1000] = "";
    for (const char *p = format; *p; p++) {
        size_t n = strlen(line);
        if (p[0] == '%' && p[1] == 's')
            snprintf(line + n, sizeof line - n, "%s", dir), p++;
        else
            line[n] = *p, line[n + 1] = 0;
    }
    int got = call(c, line);
    if (got != want) fail_msg("status %d, expected %d, of: %s", got, want, line);
}

static void test_tokenize_command(void **state) {
    (void)state;
    const command *c = &cmd_tokenize;
    no_error(write_file_atomic(at("garbage.model"), "garbage", 7));
    status_is(
        0, c,
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/cmd.h5 --valid %s/cmd-valid.h5 --deflate 3");
    status_is(0, c, "tokenize %s/corpus.jsonl --train-vocab 300 --out-model %s/cmd.model --train-mib 1");
    status_is(0, c, "tokenize %s/corpus.jsonl --tokenizer %s/cmd.model --out %s/cmd2.h5 --no-bos");
    status_is(0, c, "tokenize --help");
    static const char *const usage[] = {
        "tokenize",
        "tokenize %s/corpus.jsonl",
        "tokenize %s/corpus.jsonl --tokenizer bytes",
        "tokenize %s/corpus.jsonl --out %s/u.h5",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/cmd.h5",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --valid %s/u.h5",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --valid-docs 3",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --valid %s/v.h5 --valid-fraction 1.5",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --threads 0",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --deflate 10",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --format pdf",
        "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --sed 3",
        "tokenize %s/corpus.jsonl --train-vocab 300",
        "tokenize %s/corpus.jsonl --train-vocab 10 --out-model %s/u.model",
        "tokenize %s/corpus.jsonl --train-vocab 300 --out-model %s/u.model --out %s/u.h5",
    };
    for (size_t i = 0; i < sizeof usage / sizeof *usage; i++) status_is(ERR_USAGE, c, usage[i]);
    status_is(ERR_INPUT, c, "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --strict");
    status_is(ERR_INPUT, c, "tokenize %s/corpus.jsonl --tokenizer %s/garbage.model --out %s/u.h5");
    status_is(ERR_INPUT, c, "tokenize %s/corpus.jsonl --tokenizer %s/none --out %s/u.h5");
    status_is(ERR_INPUT, c, "tokenize %s/corpus.jsonl --tokenizer bytes --out %s/u.h5 --field body");
    status_is(ERR_INPUT, c, "tokenize %s/corpus.jsonl --train-vocab 100000 --out-model %s/u.model");
    assert_false(path_exists(at("u.h5")));
}

static void test_data_command(void **state) {
    (void)state;
    const command *c = &cmd_data;
    status_is(0, c, "data %s/cmd.h5 --check --sample 3");
    status_is(0, c, "data %s/cmd2.h5 --check --sample 3 --json");
    status_is(0, c, "data %s/cmd2.h5 --tokenizer %s/cmd.model");
    status_is(0, c, "data --help");
    static const char order[] = "run: {dir: r}\nmodel: {base: b}\ntrain: {global_batch: 4, steps: 3}\n"
                                "data: {seq_len: 64, train: [{files: cmd.h5}]}\n";
    no_error(write_file_atomic(at("order.yaml"), order, sizeof order - 1));
    status_is(0, c, "data --order %s/order.yaml --from 123456789012 --count 5");
    status_is(ERR_USAGE, c, "data %s/cmd.h5 --order %s/order.yaml");
    status_is(ERR_CONFIG, c, "data --order %s/corpus.jsonl");
    status_is(ERR_USAGE, c, "data");
    status_is(ERR_USAGE, c, "data %s/cmd.h5 --sample -2");
    status_is(ERR_USAGE, c, "data %s/cmd.h5 --sample 99999");
    status_is(ERR_INPUT, c, "data %s/corpus.jsonl");
    status_is(ERR_INPUT, c, "data %s/cmd.h5 --tokenizer %s/cmd.model");
    status_is(ERR_INPUT, c, "data %s/cmd2.h5 --tokenizer bytes");
    status_is(ERR_INPUT, c, "data %s/missing.h5");
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(dir)) return -1;
    no_error(tokenizer_open("bytes", &bytes));
    write_corpus(at("corpus.jsonl"));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tokenizer_close(bytes);
    err_free(remove_tree(dir));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_split_by_count),
        cmocka_unit_test(test_copies_stay_together),
        cmocka_unit_test(test_failures_leave_nothing),
        cmocka_unit_test(test_encoder_can_be_left),
        cmocka_unit_test(test_vocab),
        cmocka_unit_test(test_tokenize_command),
        cmocka_unit_test(test_data_command),
    };
    return cmocka_run_group_tests_name("tokenize", tests, set_up, tear_down);
}
